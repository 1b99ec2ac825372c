"""A few texts through a model, kept in memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import LayerprobeError
from .lenses import LensReadout
from .sites import SiteAt
from .tokens import Encoding

if TYPE_CHECKING:
    from .model import Model


class Activations(Mapping[str, list[Any]]):
    """What `model.run` returns: for each site, one tensor per text.

    `acts["resid_post[4]"][i]` is [tokens of text i, *shape], or [*shape] for a one-token rule;
    `acts.tokens[i]` are its tokens.
    """

    def __init__(
        self, values: dict[str, list[Any]], encodings: list[Encoding], tokens: list[list[str]]
    ) -> None:
        self._values = values
        self.encodings = encodings
        self.tokens = tokens

    def __getitem__(self, site: str | SiteAt) -> list[Any]:
        if str(site) not in self._values:
            raise KeyError(f"{site} was not kept; there are {', '.join(self._values)}")
        return self._values[str(site)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Activations({len(self.encodings)} texts; {', '.join(self._values)})"


def pad(
    rows: Sequence[Sequence[int]], *, side: str = "right", fill: int = 0, device: Any = "cpu"
) -> tuple[Tensor, Tensor]:
    """Token ids of several texts as one batch.

    Returns:
        input_ids and attention_mask, int64 [B, longest].

    >>> pad([[5, 6], [7]], side="left")[0].tolist()
    [[5, 6], [0, 7]]
    """
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, where] = torch.tensor(row, dtype=torch.long)
        mask[i, where] = 1
    return ids.to(device), mask.to(device)


def run_texts(
    model: "Model",
    texts: list[Any],
    sites: Sequence[SiteAt],
    tokens: str,
    batch_size: int,
    chat_options: Mapping[str, Any] | None = None,
) -> Activations:
    """Tokenise, batch by length, run and cut the padding off again."""
    if tokens not in ("all", "last", "first"):
        raise LayerprobeError(
            f"tokens={tokens!r}: run takes 'all', 'last' or 'first'; capture has more rules"
        )
    if not texts:
        raise LayerprobeError("no texts given: pass a list with at least one")
    encodings = [model.encode(text, chat_options=chat_options) for text in texts]
    model.check_texts([len(encoding) for encoding in encodings])
    order = sorted(range(len(texts)), key=lambda i: len(encodings[i]))
    values: dict[str, list[Any]] = {str(at): [None] * len(texts) for at in sites}
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        ids, mask = pad([encodings[i].input_ids for i in rows], device=model.device)
        out = model.forward(ids, mask, sites=sites, texts=rows)
        for at, value in out.items():
            for row, i in enumerate(rows):
                values[str(at)][i] = _cut(at, value, row, encodings[i], tokens)
    words = [model.tokenizer.convert_ids_to_tokens(e.input_ids) for e in encodings]
    return Activations(values, encodings, words)


def _cut(at: SiteAt, value: Any, row: int, encoding: Encoding, tokens: str) -> Any:
    which: Any = slice(0, len(encoding))
    if tokens == "last":
        which = len(encoding) - 1
    elif tokens == "first":
        which = next((i for i, special in enumerate(encoding.special) if not special), 0)
    if isinstance(value, LensReadout):
        return value.map(lambda v: v[row][which].cpu())
    part = value[row][which]
    if at.site == "attn_pattern":
        part = part[..., : len(encoding)]
    return part.cpu()
