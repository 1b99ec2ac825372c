"""Path patching among the strongest components: what each sends on, straight or through another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.model import Model
from .answer_task import AnswerTask
from .components import Component
from .edited_runs import path_difference, record
from .source import Source

Floats = NDArray[np.float64]
SITES = ("resid_pre", "head_out", "attn_out", "mlp_out")


@dataclass(frozen=True)
class Path:
    """From one component to a later one, or straight to the logits; everything between is held fixed."""

    sender: Component
    receiver: Component | None

    def __str__(self) -> str:
        return f"{self.sender} → {self.receiver or 'logits'}"

    def fields(self) -> dict[str, Any]:
        """Columns of a table row."""
        return {
            "component": str(self),
            "layer": self.sender.layer,
            "sender": str(self.sender),
            "receiver": str(self.receiver or "logits"),
        }


def paths_among(components: Sequence[Component]) -> list[Path]:
    """Every path from one of the components to the logits, or to another that comes after it.

    >>> head, mlp = Component("head", 1, 0), Component("mlp", 1)
    >>> [str(path) for path in paths_among([mlp, head])]
    ['head 1.0 → logits', 'head 1.0 → mlp 1', 'mlp 1 → logits']
    """
    ordered = sorted(components, key=lambda c: (c.layer, c.kind == "mlp", c.head))
    paths = []
    for sender in ordered:
        paths.append(Path(sender, None))
        paths += [Path(sender, later) for later in ordered if _after(later, sender)]
    return paths


def _after(one: Component, other: Component) -> bool:
    return one.layer > other.layer or (one.layer == other.layer and (one.kind, other.kind) == ("mlp", "head"))


def strongest(names: Sequence[Component], effects: Floats, n: int) -> list[Component]:
    """The n components whose patching changes the logit difference most; effects [rows, components]."""
    return [names[i] for i in np.argsort(-np.abs(effects.mean(axis=0)), kind="stable")[:n]]


def path_effects(
    model: Model, task: AnswerTask, origin: Source, paths: Sequence[Path], batch_size: int, corrupt: Floats
) -> Floats:
    """[rows, paths] change of LD by each path alone (Wang et al. 2022, 2211.00593)."""
    out = np.empty((len(task), len(paths)))
    for batch in task.batches(batch_size):
        cache, values = record(model, batch, SITES), origin.run(batch, ("head_out", "mlp_out"))[0]
        for column, path in enumerate(paths):
            found = path_difference(model, batch, path.sender, path.receiver, cache, values)
            out[batch.rows, column] = found.cpu()
    return out - corrupt[:, None]


def path_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Sender, receiver, effect in logits with interval and family-wise p, and the share of LD recovered."""
    frame = pd.DataFrame([row for row in rows if row["metric"] == "effect"])
    share = [row["estimate"] for row in rows if row["metric"] == "recovery"]
    keep = ["sender", "receiver", "estimate", "lo", "hi", "p_familywise"]
    return frame[keep].rename(columns={"estimate": "effect"}).assign(recovery=share)
