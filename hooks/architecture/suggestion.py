"""The call to try where a family is not known: `Names`, filled with what the model calls its parts."""

from typing import Any

from torch import nn

from .block_parts import child
from .names import Names, Words

NORM = "norm"


def call_to_try(model: nn.Module, config: Any, names: Names) -> str:
    """A sentence with the `load_model(..., names=Names(...))` to try, guessed from shapes and order.

    Args:
        model: whose parts were not found.
        config: of its text model.
        names: the words that were looked for; what they find is not repeated.
    """
    guessed = _guess(model, config, names)
    inside = ", ".join(f"{part}={value!r}" for part, value in guessed.items()) or "attention=..."
    return (
        f"If it is a transformer that calls its parts otherwise, try load_model(..., names=Names({inside})), "
        "from layerprobe import Names; see docs/sites.md, 'A new family'"
    )


def _guess(model: nn.Module, config: Any, names: Names) -> dict[str, Any]:
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    lists = {n: m for n, m in lists.items() if any(isinstance(x, nn.Linear) for x in m.modules())}
    if not lists:
        return {}
    n_layers = names.value(config, "num_hidden_layers")
    path = max(lists, key=lambda name: (len(lists[name]) == n_layers, len(lists[name]), -name.count(".")))
    blocks = lists[path]
    found = _block_parts(blocks[0], names)
    width = found.pop("width", None)
    owner = model.get_submodule(path.rpartition(".")[0])
    if child(owner, names.words("final_norm"), "") is None:
        found |= _one(
            "final_norm", [n for n, m in owner.named_children() if NORM in type(m).__name__.lower()]
        )
    sizes = {
        "num_hidden_layers": len(blocks),
        "hidden_size": width,
        "num_attention_heads": None,
    }
    fields = {
        key: _field(config, key, size) for key, size in sizes.items() if names.value(config, key) is None
    }
    fields = {key: name for key, name in fields.items() if name}
    return {**found, **({"config": fields} if fields else {})}


def _block_parts(block: nn.Module, names: Names) -> dict[str, Any]:
    """The parts of a block that `names` does not find; "width" of the stream beside them."""
    branches = {n: m for n, m in block.named_children() if any(isinstance(x, nn.Linear) for x in m.modules())}
    attention, mlp = child(block, names.words("attention"), ""), child(block, names.words("mlp"), "")
    # attention comes first, and is the one with three or more projections of the stream
    order = [name for name in branches if name not in (attention, mlp)]
    mixer = attention or (order.pop(0) if order else None)
    feed = mlp or (order.pop(0) if order else None)
    found: dict[str, Any] = {}
    if mixer is not None:
        found |= {} if attention else {"attention": mixer}
        inner = _attention_parts(block.get_submodule(mixer), names)
        found |= inner
    if feed is not None:
        found |= {} if mlp else {"mlp": feed}
        module = block.get_submodule(feed)
        if child(module, names.words("down_projection"), "") is None:
            found |= _one("down_projection", list(_linears(module))[-1:])
    norms = [n for n, m in block.named_children() if NORM in type(m).__name__.lower()]
    usual = (*names.words("mid_norm"), "post_attention_layernorm")
    if len(norms) == 2 and child(block, usual, "") is None:
        found["mid_norm"] = norms[1]
    return found


def _attention_parts(attention: nn.Module, names: Names) -> dict[str, Any]:
    linears = _linears(attention)
    if not linears:
        return {}
    found: dict[str, Any] = {"width": next(iter(linears.values())).in_features}
    projections = list(linears)
    if child(attention, names.words("output_projection"), "") is None:
        found |= _one("output_projection", projections[-1:])
    projections = [name for name in projections if name not in names.words("output_projection")]
    projections = projections[:-1] if "output_projection" in found else projections
    known = any(all(hasattr(attention, n) for n in triple) for triple in names.triples())
    if known or child(attention, names.words("fused_query"), "") is not None:
        return found
    if len(projections) == 3:
        found["query"] = tuple(projections)
    elif len(projections) == 1:
        found |= {"fused_query": projections[0], "fused_order": "blocks"}
    return found


def _linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in module.named_children() if isinstance(m, nn.Linear)}


def _one(part: str, words: list[str] | Words) -> dict[str, str]:
    return {part: words[0]} if words else {}


def _field(config: Any, key: str, size: int | None) -> str | None:
    """The configuration field of this size; of the number of heads, the one whose name or value fits."""
    numbers = {k: v for k, v in vars(config).items() if isinstance(v, int) and not isinstance(v, bool)}
    if size is not None:
        return next((name for name, value in numbers.items() if value == size), None)
    return next((name for name in numbers if "head" in name and "kv" not in name), None)
