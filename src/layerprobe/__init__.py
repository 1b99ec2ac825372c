"""layerprobe: where in a language model something is represented, and what instruction tuning does to it.

The public names stand in `__init__.pyi`; each is imported on first use: `import layerprobe` answers at once.
"""

import difflib

import lazy_loader

from ._moved import install as _install

__version__ = "0.1.0"
_install()
_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name not in __all__:
        near = difflib.get_close_matches(name, __all__, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it exports {', '.join(__all__)}"
        raise AttributeError(f"module 'layerprobe' has no attribute {name!r}; {hint}")
    return _attribute(name)
