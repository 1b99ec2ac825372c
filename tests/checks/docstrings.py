"""Public docstrings: every name says what it takes, what goes wrong, whence it comes, and runs.

usage: docstrings.py     (exit code 1 and one line per gap)

Held: a first line of purpose; `Args:` with every parameter; `Raises:` where arguments can be wrong; an
example that doctest runs; for analyses a source (an arXiv number, or authors and a year).
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import layerprobe as lp
from layerprobe.analyses.result import registry

SOURCE = re.compile(r"\d{4}\.\d{4,5}|\b(?:18|19|20)\d\d\b")
# what takes nothing that can be wrong
NO_ERRORS = {
    "LayerprobeError",
    "known_pairs",
    "ablate_everywhere",
    "AnalysisResult",
    "ActivationStore",
    "PromptTable",
}


def gaps(name: str, thing: Any) -> Iterator[str]:
    """What the docstring of one public name lacks."""
    text = inspect.getdoc(thing) or ""
    if not text:
        yield "no docstring"
        return
    if ">>>" not in text:
        yield "no example"
    if inspect.isclass(thing):
        return
    missing = [
        parameter
        for parameter in _parameters(thing)
        if not re.search(rf"^\s+\*{{0,2}}{parameter}\b.*:", text, re.M)
    ]
    if missing:
        yield f"Args: lacks {', '.join(missing)}"
    if "Raises:" not in text and name not in NO_ERRORS:
        yield "no Raises:"
    if name in {one.kind for one in registry.all_analyses()} and not SOURCE.search(
        text + _module_docstring(thing)
    ):
        yield "no source"


def _parameters(thing: Callable[..., Any]) -> list[str]:
    return [p.name for p in inspect.signature(thing).parameters.values() if not p.name.startswith("_")]


def _module_docstring(thing: Any) -> str:
    return inspect.getdoc(sys.modules[inspect.unwrap(thing).__module__]) or ""


def main() -> None:
    """Print every gap."""
    found = [f"{name}: {gap}" for name in sorted(lp.__all__) for gap in gaps(name, getattr(lp, name))]
    print("\n".join(found) or f"{len(lp.__all__)} public docstrings are whole")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
