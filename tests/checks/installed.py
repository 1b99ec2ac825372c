"""Import every module of the installed wheel, and hold it to what may land in site-packages.

usage: installed.py WHEEL
"""

import importlib
import pkgutil
import sys
import zipfile
from pathlib import Path

import layerprobe

wheel = zipfile.ZipFile(sys.argv[1])
roots = {name.split("/")[0] for name in wheel.namelist()}
strays = {root for root in roots if root != "layerprobe" and not root.endswith(".dist-info")}
assert not strays, f"the wheel would put {sorted(strays)} into site-packages"

assert "site-packages" in str(Path(layerprobe.__file__)), (
    f"imported from {layerprobe.__file__}, not from the wheel"
)
names = [module.name for module in pkgutil.walk_packages(layerprobe.__path__, "layerprobe.")]
rooms = {name.split(".")[1] for name in names}
assert rooms >= {"hooks", "cache", "analyses", "probe"}, f"rooms missing from the wheel: {rooms}"
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
for name in layerprobe.__all__:
    getattr(layerprobe, name)

inside = set(wheel.namelist())
for model in ("base", "instruct", "instruct_null"):
    for file in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        path = f"layerprobe/probe/demo/models/{model}/{file}"
        assert path in inside, f"the wheel lacks {path}"
for path in ("layerprobe/py.typed", "layerprobe/cache/FORMAT.md"):
    assert path in inside, f"the wheel lacks {path}"
assert not any("demo/train" in path for path in inside), (
    "the training of the shipped models is no part of the wheel"
)
print(f"{len(names)} modules imported from {Path(sys.argv[1]).name}")
