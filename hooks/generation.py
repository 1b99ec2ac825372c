"""How a model writes: options that say it whole, and draws that depend on the seed and the text alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import LayerprobeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: whole numbers, from the least on
_COUNTS = {"max_new_tokens": 1, "min_new_tokens": 0, "no_repeat_ngram_size": 1, "top_k": 1, "seed": 0}
#: numbers above 0, up to the most
_SHARES = {"temperature": math.inf, "repetition_penalty": math.inf, "top_p": 1.0, "min_p": 1.0}
_SAMPLED = ("seed", "temperature", "top_k", "top_p", "min_p")
OPTIONS = (*_COUNTS, *_SHARES, "do_sample", "eos_token_id")
#: of a model's own generation settings, what does not change a token that is written
_IDLE = (
    *("transformers_version", "do_sample", "max_length", "use_cache", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "output_logits", "output_scores"),
)


def checked_generate_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a generation as plain values, so that a file can record them.

    Args:
        options: `max_new_tokens`, at most so many; `min_new_tokens`; `do_sample` (default false: greedy) with
            `seed` (default 0), `temperature`, `top_k`, `top_p`, `min_p`; `repetition_penalty`,
            `no_repeat_ngram_size`; `eos_token_id`, a token id or several. What is left open is the model's
            own `generation_config`.

    Raises:
        LayerprobeError: no `max_new_tokens`, another option, a value that is none, or an option of sampling
            without `do_sample`.

    >>> checked_generate_options({"max_new_tokens": 8, "do_sample": True, "top_p": 0.9})
    {'do_sample': True, 'max_new_tokens': 8, 'seed': 0, 'top_p': 0.9}
    """
    if not isinstance(options, Mapping) or "max_new_tokens" not in options:
        raise LayerprobeError(f"generate={options!r:.80}: expected {{'max_new_tokens': 64}}, and maybe more")
    for name in (name for name in options if name not in OPTIONS):
        raise LayerprobeError(f"generate has no option {name!r}, only {', '.join(sorted(OPTIONS))}")
    given = {name: _plain(name, value) for name, value in options.items() if value is not None}
    sample = given.pop("do_sample", False)
    idle = [name for name in _SAMPLED if name in given]
    if not sample and idle:
        raise LayerprobeError(
            f"generate has {idle[0]}, which is for sampling: add 'do_sample': True, or leave it out"
        )
    if given.get("min_new_tokens", 0) > given["max_new_tokens"]:
        raise LayerprobeError(
            f"generate: min_new_tokens={given['min_new_tokens']} is more than max_new_tokens="
            f"{given['max_new_tokens']}"
        )
    return dict(sorted(({"do_sample": True, "seed": 0, **given} if sample else given).items()))


def _plain(name: str, value: Any) -> Any:
    if name == "do_sample" and isinstance(value, bool):
        return value
    if name == "eos_token_id":
        ids = [value] if isinstance(value, Integral) else value
        if isinstance(ids, Sequence) and ids and all(_is_count(one, 0) for one in ids):
            return [int(one) for one in ids]
    if name in _COUNTS and _is_count(value, _COUNTS[name]):
        return int(value)
    real = isinstance(value, Real) and not isinstance(value, bool)
    if name in _SHARES and real and 0 < float(value) <= _SHARES[name] and math.isfinite(float(value)):
        return float(value)
    if name == "do_sample":
        wanted = "true or false"
    elif name == "eos_token_id":
        wanted = "a token id, or a list of them"
    elif name in _COUNTS:
        wanted = f"a whole number from {_COUNTS[name]} on"
    else:
        wanted = "a number above 0" + ("" if math.isinf(_SHARES[name]) else f", at most {_SHARES[name]:g}")
    raise LayerprobeError(f"generate: {name}={value!r}, expected {wanted}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def own_settings(model: Any) -> dict[str, Any]:
    """What a transformers model's `generation_config` sets that the tokens it writes may depend on, as plain
    JSON values."""
    config = getattr(model, "generation_config", None)
    known = {} if config is None else config.to_diff_dict()
    deciding = {name: known[name] for name in known if name not in _IDLE and not name.startswith("_")}
    plain: dict[str, Any] = json.loads(json.dumps(deciding, sort_keys=True, default=str))
    return plain


def end_tokens(model: Any, options: Mapping[str, Any]) -> frozenset[int]:
    """Token ids that end a text: those of the options, else the model's own."""
    config = getattr(model, "generation_config", None)
    ids = options.get("eos_token_id", getattr(config, "eos_token_id", None))
    if ids is None:
        return frozenset()
    return frozenset(int(one) for one in (ids if isinstance(ids, Sequence) else np.ravel(ids)))


def counts_padding(model: Any, options: Mapping[str, Any]) -> bool:
    """Whether transformers would read the padding of a batch as if the text had said it."""
    settings = {**own_settings(model), **options}
    return settings.get("repetition_penalty", 1.0) != 1.0 or bool(settings.get("no_repeat_ngram_size"))


def as_arguments(model: Any, options: Mapping[str, Any], keys: Sequence[str], width: int) -> dict[str, Any]:
    """Options as transformers' `generate` takes them, for one batch.

    Sampling is done by a processor of its own, one number per text and token: transformers' draws change with
    the other texts of a batch and with whatever was drawn before.

    Args:
        model: the transformers module.
        options: see `checked_generate_options`.
        keys: what names each text of the batch: its draws follow from this and the seed.
        width: columns of the padded prompts.
    """
    given = {name: value for name, value in options.items() if name not in ("do_sample", *_SAMPLED)}
    given |= {"do_sample": False, "num_beams": 1}
    if not options.get("do_sample"):
        return given
    settings = {**own_settings(model), **options}
    steps = options["max_new_tokens"]
    draws = np.stack([draws_of(options["seed"], key, steps) for key in keys])
    return {**given, "logits_processor": [_Drawn(draws, width, _warpers(settings))]}


def draws_of(seed: int, key: str, count: int) -> np.ndarray:
    """[count] float64 numbers in [0, 1) that belong to one text; a longer count begins with the same."""
    digest = hashlib.sha256(f"{seed}|{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest))).random(count)


def _warpers(settings: Mapping[str, Any]) -> list[Callable[..., Tensor]]:
    from transformers.generation import logits_process as known

    kinds = {
        "temperature": known.TemperatureLogitsWarper,
        "top_k": known.TopKLogitsWarper,
        "top_p": known.TopPLogitsWarper,
        "min_p": known.MinPLogitsWarper,
    }
    idle = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    chosen = {name: settings.get(name) for name in kinds}
    return [
        kinds[name](value) for name, value in chosen.items() if value is not None and value != idle.get(name)
    ]


class _Drawn:
    """Leaves, of every row's scores, the one token whose share of the distribution its number falls in."""

    def __init__(self, draws: np.ndarray, width: int, warpers: Sequence[Callable[..., Tensor]]) -> None:
        self.draws, self.width, self.warpers = draws, width, warpers

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Tensor:
        import torch

        warped: Tensor = scores
        for warp in self.warpers:
            warped = warp(input_ids, warped)
        wide = warped.cpu() if warped.device.type == "mps" else warped  # which has no float64
        summed = wide.double().softmax(-1).cumsum(-1)
        number = torch.from_numpy(self.draws[:, input_ids.shape[1] - self.width]).to(summed)
        token = torch.searchsorted(summed, (number * summed[:, -1]).unsqueeze(1), right=True)
        chosen = token.clamp(max=scores.shape[-1] - 1).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)
