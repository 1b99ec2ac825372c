"""What SECURITY.md says of code and data, held against the library's own source."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import layerprobe as lp

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for room in ("hooks", "cache", "analyses", "probe") for path in (ROOT / room).rglob("*.py")
)
UNPICKLING = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("room", ["hooks", "cache", "analyses", "probe"])
def test_nothing_is_unpickled_or_evaluated(room):
    found = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != room:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [(path, name) for name in names if name.split(".")[0] in UNPICKLING]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                loads = called in ("eval", "exec", "np.load", "numpy.load", "torch.load")
                safe = any(k.arg in ("allow_pickle", "weights_only") for k in node.keywords)
                found += [(path, called)] if loads and not safe else []
    assert found == []


def test_only_the_guarded_layer_opens_stores_with_h5py():
    opens = re.compile(r"h5py\.File\(")
    found = {path.relative_to(ROOT).as_posix() for path in SOURCES if opens.search(path.read_text())}
    assert found <= {"cache/file/guarded.py", "cache/file/atomic.py"}


def test_code_of_a_models_repository_runs_only_if_asked():
    assert inspect.signature(lp.load_model).parameters["trust_remote_code"].default is False


def test_every_test_that_security_names_is_there():
    named = set(
        re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py|tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text())
    )
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "tests/cache" / name).exists(), name
