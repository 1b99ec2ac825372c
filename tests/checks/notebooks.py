"""Run every notebook of examples/ from top to bottom, in its own folder."""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

failed = 0
for path in sorted(Path("examples").glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    started = time.monotonic()
    try:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": "examples"}}).execute()
    except CellExecutionError as error:
        failed += 1
        print(f"{path}: failed\n{error}")
    else:
        print(f"{path}: ran in {time.monotonic() - started:.0f} s")
sys.exit(bool(failed))
