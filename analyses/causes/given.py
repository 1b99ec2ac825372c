"""Sparing attention what nobody reads: heads given from outside, or only the last token's query asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ...hooks.interventions import patch
from ...hooks.sites import SiteAt


@contextmanager
def given_heads(model: Any, layer: int, heads: Tensor) -> Iterator[None]:
    """Within the block, a layer's attention writes what its output projection makes of these heads.

    Where the model allows it the rest of that attention is not computed at all; elsewhere the heads are put
    in by an ordinary intervention, to the same effect.

    Args:
        model: whose attention.
        layer: which one.
        heads: [B, T, H, d_head].
    """
    returned = plain_attention(model, layer)
    if returned is None:
        with model.edit(patch("head_out", layer=layer, values=heads)):
            yield
    else:
        with _projected(model, layer, heads, returned):
            yield


@contextmanager
def _projected(model: Any, layer: int, heads: Tensor, returned: int) -> Iterator[None]:
    parts = model.anatomy.blocks[layer]
    attention, projection = (model.hf.get_submodule(path) for path in (parts.attention, parts.o_proj))
    before = attention.__dict__.get("forward")

    def forward(*_: Any, **__: Any) -> Any:
        written = projection(rearrange(heads, "b t h d -> b t (h d)"))
        return written if not returned else (written, *(None,) * (returned - 1))

    attention.__dict__["forward"] = forward
    try:
        yield
    finally:
        del attention.__dict__["forward"]
        if before is not None:  # accelerate's own wrapper
            attention.__dict__["forward"] = before


@contextmanager
def last_query(model: Any, layer: int) -> Iterator[None]:
    """Within the block, a layer attends from the last token only; its heads elsewhere are meaningless.

    Where attention runs as PyTorch's fused function; other implementations do all of it, as ever.
    """
    parts = model.anatomy.blocks[layer]
    mode = _LastQuery()
    if model.engine.name != "huggingface" or not parts.attention:
        yield
        return
    attention = model.hf.get_submodule(parts.attention)
    handles = [
        attention.register_forward_pre_hook(lambda *_: mode.arm(True)),
        attention.register_forward_hook(lambda *_: mode.arm(False), always_call=True),
    ]
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _LastQuery(TorchFunctionMode):
    """Asks `scaled_dot_product_attention` for its last row, while armed, and repeats that for all."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False

    def arm(self, armed: bool) -> None:
        self.armed = armed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if not self.armed or func is not scaled_dot_product_attention or len(args) != 3:
            return func(*args, **options)
        query, key, value = args
        mask = options.get("attn_mask")
        if mask is not None:
            options["attn_mask"] = mask[..., -1:, :]
        options["is_causal"] = False  # the last token sees all the others
        row = func(query[..., -1:, :], key, value, **options)
        return row.expand(*row.shape[:-2], query.shape[-2], row.shape[-1])


_PLAIN: "WeakKeyDictionary[Any, dict[int, int | None]]" = WeakKeyDictionary()


def plain_attention(model: Any, layer: int) -> int | None:
    """Length of the tuple that an attention returns (0: a bare tensor) where it ends in projecting heads.

    None where it does more (BLOOM adds the stream there) or another engine runs it. Tried out once per layer,
    on two tokens.
    """
    known = _PLAIN.setdefault(model, {})
    if layer not in known:
        known[layer] = _try_out(model, layer) if model.engine.name == "huggingface" else None
    return known[layer]


@torch.no_grad()
def _try_out(model: Any, layer: int) -> int | None:
    attention = model.hf.get_submodule(model.anatomy.blocks[layer].attention)
    if not model.anatomy.blocks[layer].o_proj:
        return None
    shapes: list[int] = []
    handle = attention.register_forward_hook(
        lambda module, args, out: shapes.append(len(out) if isinstance(out, tuple) else 0)
    )
    ids = torch.tensor([[1, 2]]) % model.vocab_size
    heads, after = SiteAt("head_out", layer), SiteAt("resid_post", layer)
    try:
        seen = model.forward(ids, torch.ones_like(ids), sites=[heads, after])
    finally:
        handle.remove()
    try:
        with _projected(model, layer, seen[heads], shapes[0]):
            again = model.forward(ids, torch.ones_like(ids), sites=[after])
    except Exception:  # a block that wants more of its attention than that
        return None
    close = torch.allclose(again[after], seen[after], rtol=1e-4, atol=1e-4 * float(seen[after].abs().max()))
    return shapes[0] if close else None
