"""Worlds of activations: labels that nothing carries, and truths planted at a known layer and size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from worlds.world import Draw, World

import layerprobe as lp

VOCABULARY = [f"{a}{b}" for a in ("bre", "riv", "eng", "vio", "har", "lan", "mea", "cop") for b in "aeiou"]
FIRST = 2
"""The layer from which a planted label is read."""
SHARED, WIDTH = 4, 10
"""Dimensions that two stores share, of how many."""


@dataclass(frozen=True)
class Rows:
    """Prompts in groups, and what two models say of them."""

    base: Any
    """[layers, rows, width]."""
    instruct: Any
    y: Any
    """[rows] 0 or 1; −1 where it is missing."""
    groups: Any
    texts: list[str]
    lengths: Any
    kind: Any
    """[rows] `a`, `b` or `c`."""
    grade: Any
    """[rows] numbers."""

    def draw(self, **options: Any) -> Draw:
        """Both models' stores."""
        label = np.array(["no", "yes", None], dtype=object)[self.y]
        codes = np.unique(self.groups, return_inverse=True)[1]
        labels = {"label": label, "kind": self.kind, "grade": self.grade}
        labels["domain"] = np.array(["north", "south"])[codes % 2]
        stores = {
            name: lp.from_arrays(
                {"resid_post": x.astype(np.float32)},
                labels=labels,
                groups=self.groups,
                texts=self.texts,
                lengths=lengths,
                model_name=name,
            )
            for name, x, lengths in (
                ("base", self.base, self.lengths),
                ("instruct", self.instruct, self.lengths),
            )
        }
        return Draw(stores, options=options)


def rows(
    seed: int, *, layers: int = 3, width: int = 6, n_groups: int = 40, per_group: int = 2, alike: float = 1.0
) -> Rows:
    """Labels exchanged between groups, of which activations, words and lengths know nothing.

    Args:
        seed: of the draw.
        layers: of both models.
        width: of an activation.
        n_groups: of prompts.
        per_group: prompts in each.
        alike: spread between groups over that within them.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    n = len(groups)
    x = rng.normal(size=(layers, n, width)) + alike * rng.normal(size=(layers, n_groups, width))[:, groups]
    kinds = np.array(["a", "b", "c"], dtype=object)[rng.permutation(np.arange(n_groups) % 3)]
    words = [" ".join(rng.choice(VOCABULARY, 7)) for _ in range(n)]
    return Rows(
        base=x,
        instruct=x + 0.5 * rng.normal(size=x.shape),
        y=rng.permutation(np.arange(n_groups) % 2)[groups],
        groups=groups,
        texts=[f"{text} {row}" for row, text in enumerate(words)],
        lengths=rng.integers(5, 20, n),
        kind=kinds[groups],
        grade=rng.normal(size=n_groups)[groups],
    )


def shuffled(**size: int) -> Callable[[int], Draw]:
    """The plain null, of some depth and width."""
    return lambda seed: rows(seed, **size).draw()


def same_twice(seed: int) -> Draw:
    """The same model under two names."""
    one = rows(seed)
    return replace(one, instruct=one.base.copy()).draw()


def reseeded_twin(seed: int) -> Draw:
    """What one model knows, turned and scaled as another seed of training would."""
    one, rng = rows(seed), np.random.default_rng([seed, 1])
    turn = np.linalg.qr(rng.normal(size=(one.base.shape[2],) * 2))[0]
    return replace(one, instruct=1.3 * one.base @ turn + 0.3 * rng.normal(size=one.base.shape)).draw()


def other_tokenizer(seed: int) -> Draw:
    """Two models that differ in how many tokens a prompt has."""
    one = rows(seed)
    draw, longer = one.draw(), replace(one, lengths=2 * one.lengths + 3).draw()
    return replace(draw, stores={"base": draw.stores["base"], "instruct": longer.stores["instruct"]})


def duplicates(seed: int) -> Draw:
    """Fifty texts in four copies, with random labels, and nobody says which belong together."""
    rng = np.random.default_rng(seed)
    one = rows(seed, n_groups=50, per_group=4)
    first = 4 * (np.arange(200) // 4)
    texts = [one.texts[row] for row in first]
    copies = replace(one, base=one.base[:, first], instruct=one.instruct[:, first], texts=texts)
    y = rng.permutation(np.arange(50) % 2)[one.groups]
    return replace(copies, y=y, lengths=one.lengths[first]).draw(groups=None)


def paraphrases(seed: int) -> Draw:
    """Five wordings of each item, nearly alike, that share its random label."""
    return rows(seed, n_groups=40, per_group=5, alike=4.0).draw()


def length_of_label(seed: int) -> Draw:
    """Prompts of one class are longer, and activations know neither."""
    one = rows(seed)
    return replace(one, lengths=5 + 6 * one.y + np.random.default_rng(seed).integers(0, 3, len(one.y))).draw()


def massive(seed: int) -> Draw:
    """One dimension a thousand times as large as the others."""
    one = rows(seed)
    scale = np.ones(one.base.shape[2])
    scale[0] = 1000.0
    return replace(one, base=one.base * scale, instruct=one.instruct * scale).draw()


def gaps(seed: int) -> Draw:
    """Labels missing at random, whole groups of them."""
    one = rows(seed, n_groups=50)
    lost = np.random.default_rng([seed, 2]).random(50)[one.groups] < 0.2
    kind = one.kind.copy()
    kind[lost] = None
    return replace(one, y=np.where(lost, -1, one.y), kind=kind).draw()


def readable_late(seed: int, strength: float = 2.5) -> Draw:
    """A label along one direction from layer FIRST of five on; nothing before it."""
    one, rng = rows(seed, layers=5, alike=0.3), np.random.default_rng([seed, 3])
    axis = rng.normal(size=one.base.shape[2])
    axis *= strength / np.linalg.norm(axis)
    moved = one.base + np.where(np.arange(5) >= FIRST, 1.0, 0.0)[:, None, None] * one.y[:, None] * axis
    noise = 0.1 * rng.normal(size=moved.shape)
    # nearly all of the grade is told by the same direction
    grade = one.y + 0.1 * one.grade
    return replace(one, base=moved, instruct=moved + noise, grade=grade).draw()


def cluster(seed: int, strength: float = 4.0) -> Draw:
    """Three clusters in every layer: `a` and `b` so many standard deviations apart, `c` nearly at `b`."""
    one = rows(seed, alike=0.0, n_groups=42)
    place = np.select([one.kind == "a", one.kind == "b"], [0.0, 1.0], 0.85)
    shift = np.zeros(one.base.shape[2])
    shift[0] = strength
    y = np.where(one.kind == "a", 0, 1)
    moved = one.base + place[:, None] * shift
    return replace(one, y=y, base=moved, instruct=moved).draw()


def length_confound(seed: int) -> Draw:
    """Activations hold the length of the prompt, which tells the label."""
    one, rng = rows(seed, n_groups=80), np.random.default_rng([seed, 4])
    lengths = 10 + 4 * one.y + rng.integers(0, 4, len(one.y))
    x = one.base.copy()
    x[:, :, 0] = 2 * (lengths - lengths.mean()) / lengths.std() + 0.1 * rng.normal(size=x.shape[:2])
    return replace(one, base=x, instruct=x, lengths=lengths).draw()


def shared_subspace(seed: int) -> Draw:
    """SHARED of WIDTH independent dimensions are those of the other model, turned; the others are its own."""
    one, rng = rows(seed, width=WIDTH, n_groups=150, alike=0.0), np.random.default_rng([seed, 5])
    other = np.concatenate([one.base[..., :SHARED], rng.normal(size=one.base.shape)[..., SHARED:]], axis=-1)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    return replace(one, instruct=other @ turn).draw()


def class_moves(seed: int, strength: float = 2.5) -> Draw:
    """What tuning did: the classes lie further apart from layer FIRST of five on, in `instruct` alone."""
    one = rows(seed, layers=5, alike=0.3)
    shift = np.zeros((5, 1, one.base.shape[2]))
    shift[FIRST:, 0, 0] = strength
    return replace(one, instruct=one.instruct + shift * one.y[:, None]).draw()


def pairs(seed: int, strength: float = 0.0) -> Draw:
    """Statements that end in yes and no; which of a pair is true is told from layer 1 on, or by nothing."""
    rng = np.random.default_rng(seed)
    n = 60
    item, side = np.repeat(np.arange(n), 2), np.tile([0, 1], n)
    true = side == rng.integers(0, 2, n)[item]
    x = rng.normal(size=(2, n, 6))[:, item] + 0.5 * rng.normal(size=(2, 2 * n, 6))
    x[:, :, 0] += 8 * side
    x[1, :, 1] += strength * (2 * true - 1)
    labels = {"true": true, "side": np.where(side, "yes", "no")}
    store = lp.from_arrays({"resid_post": x}, labels=labels, groups=item, pairs=item, model_name="instruct")
    return Draw({"instruct": store})


def tokens(seed: int, strength: float = 0.0) -> Draw:
    """Prompts of several tokens; one token of a positive prompt carries the label at layer 1, or none."""
    rng = np.random.default_rng(seed)
    n = 60
    lengths = rng.integers(3, 7, n)
    examples = np.repeat(np.arange(n), lengths)
    positions = np.concatenate([np.arange(k) for k in lengths])
    y = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(2, len(examples), 4))
    hit = (positions == rng.integers(0, lengths)[examples]) & (y[examples] == 1)
    x[1, hit, 0] += strength
    given = {"groups": np.arange(n), "examples": examples, "positions": positions, "model_name": "instruct"}
    return Draw({"instruct": lp.from_arrays({"resid_post": x}, labels={"label": y}, **given)})


def words(seed: int, strength: float = 0.0) -> Draw:
    """Words with a random label for each type, to be memorised; or a label that layer 1 carries."""
    rng = np.random.default_rng(seed)
    n, types = 400, 30
    word = rng.integers(0, types, n)
    embedding = rng.normal(size=(types, 8))
    x = np.stack([embedding[word]] * 2) + 0.3 * rng.normal(size=(2, n, 8))
    tag = rng.permutation(np.arange(types) % 2)[word] if strength == 0 else rng.integers(0, 2, n)
    x[1, :, 0] += strength * tag
    groups = np.repeat(np.arange(n // 8), 8)
    store = lp.from_arrays({"resid_post": x}, labels={"tag": tag}, groups=groups, model_name="instruct")
    return Draw({"instruct": store}, more={"types": word})


NULL = [
    World("labels shuffled, 3 × 6", "rows", shuffled()),
    World("labels shuffled, 1 × 3", "rows", shuffled(layers=1, width=3)),
    World("labels shuffled, 2 × 64", "rows", shuffled(layers=2, width=64)),
    World("labels shuffled, 8 × 4", "rows", shuffled(layers=8, width=4)),
    World("labels shuffled, 5 × 16", "rows", shuffled(layers=5, width=16)),
    World("the same model twice", "rows", same_twice),
    World("a reseeded twin", "rows", reseeded_twin),
    World("another tokenizer", "rows", other_tokenizer),
    World("duplicates", "rows", duplicates),
    World("paraphrases", "rows", paraphrases),
    World("length tied to label", "rows", length_of_label),
    World("one massive dimension", "rows", massive),
    World("labels missing", "rows", gaps),
    World("truth of pairs is random", "pairs", pairs),
    World("labels of prompts are random", "tokens", tokens),
    World("labels of word types are random", "words", words),
]
PLANTED = [
    World(f"readable from layer {FIRST}", "rows", readable_late, readable_late),
    World("a cluster", "rows", cluster, cluster),
    World("length carries the label", "rows", length_confound),
    World("a shared subspace", "rows", shared_subspace),
    World("classes moved by tuning", "rows", class_moves, class_moves),
    World("truth of pairs", "pairs", lambda seed: pairs(seed, 2.0), pairs),
    World("one token tells", "tokens", lambda seed: tokens(seed, 5.0), tokens),
    World("a label beyond word types", "words", lambda seed: words(seed, 3.0), words),
]
