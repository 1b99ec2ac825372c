"""An independent, slow reader of store files: h5py alone, after `cache/FORMAT.md`, believing everything.

It shares no code with the library. What the library reads of a file, it must read as this does, or refuse.
"""

import json
from itertools import pairwise
from urllib.parse import unquote

import h5py
import numpy as np


def read(path):
    """Everything that a store holds, by the names that the library's store gives it.

    Returns:
        `activations` site -> [layers, rows, ...] (or [rows, ...]), `layers`, `lens` name -> array, `texts`,
        `ids`, `labels` name -> values per prompt, `examples`, `positions`, `token_ids`, and `committed`,
        [blocks] bool by the look of each journal entry.
    """
    with h5py.File(path, "r", locking=False) as file:
        header = json.loads(file["header"][()].tobytes())
        out = {"header": header, "layers": {}, "activations": {}, "lens": {}}
        for site, dataset in file["activations"].items():
            out["activations"][site] = _numbers(dataset)
            out["layers"][site] = tuple(dataset.attrs["layers"].tolist()) if "layers" in dataset.attrs else ()
        for name, dataset in file.get("lens", {}).items():
            out["lens"][name] = dataset[()]
        prompts = file["prompts"]
        out["ids"] = [value.decode() for value in prompts["ids"][()]]
        starts, data = prompts["text_starts"][()], prompts["text_bytes"][()].tobytes()
        out["texts"] = [data[a:b].decode() for a, b in pairwise(starts)]
        starts, tokens = prompts["token_starts"][()], prompts["token_ids"][()]
        out["token_ids"] = [tokens[a:b].tolist() for a, b in pairwise(starts)]
        out["labels"] = {name: _column(file, f"prompts/labels/{name}") for name in prompts.get("labels", {})}
        out["examples"], out["positions"] = file["rows/examples"][()], file["rows/positions"][()]
        journal = file["journal"][()]
        out["committed"] = [
            int(e["magic"]) == 0x4C50424B and int(e["block"]) == i for i, e in enumerate(journal)
        ]
    return out


def _numbers(dataset):
    """Rows as numpy holds them; HDF5 itself widens bfloat16, which numpy has not, to exact float32."""
    if dataset.id.get_type().get_ebias() == 127 and dataset.id.get_type().get_size() == 2:
        return dataset.astype(np.float32)[()]
    return dataset[()]


def _column(file, key):
    values = file[key][()]
    if values.dtype.kind != "S":
        return values.tolist()
    missing = file[f"missing/{key}"][()] if f"missing/{key}" in file else np.zeros(len(values))
    return [None if gone else value.decode() for value, gone in zip(values, missing, strict=True)]


def differences(store, path):
    """Names of what a store of the library and this reader tell differently of one file, [] for nothing."""
    plain, found = read(path), []
    if sorted(store.sites) != sorted(plain["activations"]):
        found.append("sites")
    for site, values in plain["activations"].items():
        if site in store.sites:
            if store.layers(site) != plain["layers"][site]:
                found.append(f"layers of {site}")
            mine = store.activations(site)
            if mine.shape != values.shape or mine.dtype != values.dtype or mine.tobytes() != values.tobytes():
                found.append(site)
    if plain["lens"]:
        found += [
            f"lens {name}"
            for name, values in plain["lens"].items()
            if np.asarray(getattr(store.lens, name)).tobytes() != values.tobytes()
        ]
    if list(store.columns.ids) != plain["ids"]:
        found.append("ids")
    for name, values in plain["labels"].items():
        mine = store.columns.labels.get(unquote(name), ())
        if [str(value) for value in mine] != [str(value) for value in values]:
            found.append(f"label {name}")
    if store.texts != plain["texts"]:
        found.append("texts")
    if [ids.tolist() for ids in store.token_ids()] != plain["token_ids"]:
        found.append("token ids")
    if store.examples.tolist() != plain["examples"].tolist():
        found.append("examples")
    if store.positions.tolist() != plain["positions"].tolist():
        found.append("positions")
    return found
