"""What was run on what: the facts that a report must state, as plain values."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..report.parts import table
from ..results.folder import plain
from .spec import Study
from .toml import study_toml

if TYPE_CHECKING:
    from ...cache.prompts.table import PromptTable
    from ...cache.store.activations import ActivationStore

LIBRARIES = ("numpy", "scipy", "scikit-learn")  # beside those that the capture recorded
MODEL_FACTS = ("source", "revision", "engine", "dtype", "n_layers", "d_model", "weights_sha256")


def study_facts(
    title: str,
    prompts: PromptTable | None,
    stores: Mapping[str, ActivationStore],
    *,
    command: str,
    spec: Study | None = None,
) -> dict[str, Any]:
    """Title, models with their identities, prompts, capture and versions.

    Args:
        title: heading of the report.
        prompts: the prompt table, where there is one; else the first store speaks for it.
        stores: model name -> activations.
        command: how to make the report again.
        spec: the study, where there is one.
    """
    first = next(iter(stores.values()))
    models = [_model_facts(name, store, spec) for name, store in stores.items()]
    asked = _prompt_facts(prompts, first, spec)
    facts: dict[str, Any] = {
        "title": title,
        "command": command,
        "version": _version(),
        "created": _date(stores),
        "versions": _versions(stores),
        "models": models,
        "prompts": asked,
        "capture": _capture_facts(first),
        "examples": _examples(stores),
    }
    if spec is not None:
        facts["study"] = study_toml(spec)
    facts["tables"] = [_models_table(models), _prompts_table(asked), _about_table(facts)]
    return dict(plain(facts))


def _version() -> str:
    from ... import __version__

    return __version__


def _model_facts(name: str, store: ActivationStore, spec: Study | None) -> dict[str, Any]:
    run = store.provenance
    model = run.get("model", {})
    facts = {k: model.get(k) for k in MODEL_FACTS}
    facts["device"], facts["attention"] = run.get("device"), run.get("attention")
    facts["chat_template"] = run.get("options", {}).get("chat_template")
    if spec is not None and name in spec.models:
        facts["source"] = spec.models[name].source
    return {"name": name, **facts}


def _models_table(models: list[dict[str, Any]]) -> dict[str, Any]:
    def cell(value: Any) -> str:
        return "–" if value is None else str(value)

    rows = [
        [
            m["name"],
            cell(m["source"]),
            cell(m["revision"]),
            cell(m["weights_sha256"])[:16],
            cell(m["n_layers"]),
            cell(m["d_model"]),
            cell(m["dtype"]),
            f"{cell(m['engine'])}, {cell(m['device'])}",
            {True: "chat template", False: "plain text"}.get(m["chat_template"], "as the prompts are"),
        ]
        for m in models
    ]
    columns = [
        "model",
        "source",
        "revision",
        "weights (SHA-256)",
        "layers",
        "width",
        "dtype",
        "engine, device",
        "prompts as",
    ]
    return table(columns, rows, caption="Models")


def _prompt_facts(prompts: PromptTable | None, store: ActivationStore, spec: Study | None) -> dict[str, Any]:
    groups = store.groups if prompts is None else prompts.groups
    names = list(store.label_names if prompts is None else prompts.labels)
    labels = {n: store.labels(n) if prompts is None else prompts.labels[n] for n in names}
    return {
        "file": store.dataset_name if spec is None else spec.prompts.file,
        "sha256": None if prompts is None else prompts.sha256,
        "n": store.n_prompts if prompts is None else len(prompts),
        "groups": None if groups is None else len(set(map(str, groups))),
        "group_column": None if spec is None else spec.prompts.group,
        "labels": {name: dict(Counter(map(str, values)).most_common(12)) for name, values in labels.items()},
    }


def _prompts_table(facts: dict[str, Any]) -> dict[str, Any]:
    groups = "–" if facts["groups"] is None else f"{facts['groups']:,}"
    if facts["group_column"]:
        groups += f" (column {facts['group_column']})"
    rows = [["file", str(facts["file"])], ["prompts", f"{facts['n']:,}"], ["groups", groups]]
    if facts["sha256"]:
        rows.append(["SHA-256 of the table", facts["sha256"][:16]])
    for name, counts in facts["labels"].items():
        shown = ", ".join(f"{value} {n:,}" for value, n in list(counts.items())[:6])
        rows.append([f"label {name}", shown + (" …" if len(counts) > 6 else "")])
    return table(["prompts", ""], rows, caption="Prompts")


def _capture_facts(store: ActivationStore) -> dict[str, Any]:
    layers = {site: list(store.layers(site)) for site in store.sites}
    return {
        "sites": list(store.sites) + (["lens"] if store.lens is not None else []),
        "layers": {site: len(found) for site, found in layers.items()},
        "tokens": store.tokens,
        "rows": store.n_rows,
        "dtype": store.dtype,
    }


def _about_table(facts: dict[str, Any]) -> dict[str, Any]:
    capture = facts["capture"]
    rows = [
        ["sites", ", ".join(capture["sites"])],
        ["token rule", capture["tokens"]],
        ["rows", f"{capture['rows']:,}"],
        ["stored as", capture["dtype"]],
        ["versions", ", ".join(f"{k} {v}" for k, v in facts["versions"].items())],
    ]
    return table(["capture", ""], rows, caption="Capture and software")


def _versions(stores: Mapping[str, ActivationStore]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"layerprobe": _version(), "python": platform.python_version()}
    for store in stores.values():
        found |= store.provenance.get("versions", {})
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _date(stores: Mapping[str, ActivationStore]) -> str | None:
    """The day of the capture, not of the rendering, so that a report made again is the same."""
    return max(str(store.provenance.get("created") or "")[:10] for store in stores.values()) or None


def _examples(stores: Mapping[str, ActivationStore]) -> list[dict[str, str]]:
    shown = []
    for name, store in stores.items():
        for text in (store.texts or [])[:1]:
            shown.append({"caption": f"{name}, prompt {store.ids[0]}", "text": text})
    return shown
