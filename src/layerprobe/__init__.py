"""layerprobe: where in a language model something is represented, and what instruction tuning does to it.

Everything here is imported on first use, so that `import layerprobe` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# public name -> the module below `layerprobe` that defines it
_HOME = {
    "load_model": "hooks.load",
    "add": "hooks.interventions",
    "ablate": "hooks.interventions",
    "project_out": "hooks.interventions",
    "patch": "hooks.interventions",
    "read_prompts": "cache.prompts",
    "capture": "cache.capture",
    "open_store": "cache.store",
    "from_arrays": "cache.memory",
    "ActivationStore": "cache.store",
    "AnalysisResult": "analyses.result",
    "read_result": "analyses.result",
    "linear_probe": "analyses.linear_probe",
    "separation": "analyses.separation",
    "suppression": "analyses.suppression",
    "compare": "analyses.comparison",
    "run_study": "probe.study",
    "LayerprobeError": "hooks.errors",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'layerprobe' has no attribute {name!r}; it exports {', '.join(_HOME)}")
    value = getattr(import_module(f"layerprobe.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if TYPE_CHECKING:
    from .analyses.comparison import compare as compare
    from .analyses.linear_probe import linear_probe as linear_probe
    from .analyses.result import AnalysisResult as AnalysisResult
    from .analyses.result import read_result as read_result
    from .analyses.separation import separation as separation
    from .analyses.suppression import suppression as suppression
    from .cache.capture import capture as capture
    from .cache.memory import from_arrays as from_arrays
    from .cache.prompts import read_prompts as read_prompts
    from .cache.store import ActivationStore as ActivationStore
    from .cache.store import open_store as open_store
    from .hooks.errors import LayerprobeError as LayerprobeError
    from .hooks.interventions import ablate as ablate
    from .hooks.interventions import add as add
    from .hooks.interventions import patch as patch
    from .hooks.interventions import project_out as project_out
    from .hooks.load import load_model as load_model
    from .probe.study import run_study as run_study
