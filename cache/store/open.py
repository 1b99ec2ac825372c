"""`open_store`: a store file, or an index of several, as one `ActivationStore`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .activations import ActivationStore
from .manifest import is_index, open_index
from .reader import Verify, open_file


def open_store(path: str | Path, verify: Verify = "first-touch") -> ActivationStore:
    """Open a store, memory-mapped.

    Args:
        path: a file written by `capture`, or an index written by `layerprobe merge`.
        verify: when rows are compared with the checksums that they were written with: `first-touch` when a
            block of rows is first read, `all` now, `off` never (`layerprobe verify` does it on its own).

    Raises:
        LayerprobeError: there is no such file, it cannot be read, it is no store, or it is damaged.

    >>> import tempfile
    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model, path = lp.load_model(demo.models()["base"], check=False), Path(tempfile.mkdtemp()) / "a.h5"
    >>> _ = lp.capture(model, ["who was late ?"], sites="embed", path=path, progress=False)
    >>> lp.open_store(path, verify="all").activations("embed").shape
    (1, 96)
    """
    path = Path(path).expanduser()
    store = open_index(path, verify) if is_index(path) else open_file(path, verify)
    store.opened_by(partial(open_store, verify=verify))
    return store
