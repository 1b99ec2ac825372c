"""Which analyses there are, without importing them: read off the decorators in the source.

`layerprobe --help` lists all analyses within a second, and each of them imports torch.
"""

import ast
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

_LOG = logging.getLogger(__name__)
ENTRY_POINTS = "layerprobe.analyses"
_PACKAGE = __name__.rpartition(".result.")[0]
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Listed:
    """What can be said of an analysis before its module is imported."""

    kind: str
    command: str
    module: str
    about: str
    """The first line of its docstring."""
    group: str
    """A key of `registry.GROUPS`."""
    aliases: tuple[str, ...]
    package: str
    """The distribution it comes from."""


@cache
def listed() -> dict[str, Listed]:
    """Kind → analysis: ours, then those that other packages register as entry points `layerprobe.analyses`.

    An entry point names a module (`their_package.norms`) that holds decorated functions.
    """
    found: dict[str, Listed] = {}
    for path in sorted(_ROOT.rglob("*.py")):
        module = ".".join((_PACKAGE, *path.relative_to(_ROOT).with_suffix("").parts))
        found |= _decorated(path, module, "layerprobe")
    for entry in entry_points(group=ENTRY_POINTS):
        package = entry.dist.name if entry.dist else entry.module.partition(".")[0]
        try:
            spec = find_spec(entry.module)
            theirs = _decorated(Path(spec.origin), entry.module, package) if spec and spec.origin else {}
        except (ImportError, OSError, SyntaxError, ValueError) as error:
            _LOG.warning("the analyses of %s cannot be read and are left out: %s", package, error)
            continue  # somebody else's fault must not cost ours
        found |= {kind: one for kind, one in theirs.items() if kind not in found}
    return found


def name_of(name: str) -> str | None:
    """The kind that goes by this name, a former one or a command's included; None where there is none."""
    for kind, one in listed().items():
        if name in (kind, one.command) or name in one.aliases:
            return kind
    return None


def _decorated(path: Path, module: str, package: str) -> dict[str, Listed]:
    source = path.read_text(encoding="utf-8")
    if "\n@analysis(" not in source:
        return {}
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "analysis":
                said = {key.arg: key.value for key in decorator.keywords}
                command, aliases = said.get("command"), said.get("aliases")
                found[node.name] = Listed(
                    kind=node.name,
                    command=ast.literal_eval(command) if command else node.name.replace("_", "-"),
                    module=module,
                    about=(ast.get_docstring(node) or "").partition("\n")[0],
                    group=ast.literal_eval(said["group"]),
                    aliases=tuple(ast.literal_eval(aliases)) if aliases else (),
                    package=package,
                )
    return found
