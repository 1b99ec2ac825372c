"""What must not decide: the order of rows, names of groups and classes, threads, where a store lies.

One list of analyses is run in every guise of one world; it will come from the registry.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lens_worlds import FLAT, OVERRIDDEN, lens_table, tiny, tiny_store

import layerprobe as lp
from layerprobe.analyses.statistics.quantities import quantity

N_GROUPS, PER_GROUP, LAYERS, WIDTH = 24, 3, 3, 5
N = N_GROUPS * PER_GROUP
WORDS = ("bread", "river", "engine", "violin", "harbour", "lantern", "meadow", "copper")
FEW = {"n_bootstrap": 20, "n_permutations": 20}


@dataclass(frozen=True)
class Guise:
    """One way to hand over the same rows."""

    order: Any = None
    group: Callable[[int], str] = "group {:02d}".format
    classes: tuple[str, str] = ("no", "yes")
    texts: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def world(guise: Guise, seed: int = 0) -> Any:
    """Rows in groups; a label constant within groups, one of three values, numbers, a lens; some gaps."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(N_GROUPS), PER_GROUP))
    y = groups % 2
    own = np.random.default_rng(100 + seed)  # prompts and labels are those of every model
    x = own.normal(size=(LAYERS, N, WIDTH)) + 0.7 * own.normal(size=(N_GROUPS, WIDTH))[groups]
    x[1:, :, 0] += 2.5 * y
    curves = np.where(y, np.interp(np.linspace(0, 7, LAYERS), range(8), OVERRIDDEN)[:, None], FLAT[-1])
    difference = curves + own.normal(size=(LAYERS, N))
    kind = np.array(["a", "b", "c"], dtype=object)[(groups // 2) % 3]
    kind[::17] = None
    label = np.array(guise.classes, dtype=object)[y]
    label[5::23] = None
    texts = [
        f"{WORDS[rng.integers(8)]} {WORDS[rng.integers(8)]} {'kind' if one else 'plain'} number {row}"
        for row, one in enumerate(rng.random(N) < 0.3 + 0.4 * y)
    ]
    order = np.arange(N) if guise.order is None else guise.order
    return lp.from_arrays(
        {"resid_post": x[:, order]},
        labels={
            "y": label[order],
            "kind": kind[order],
            "grade": (x[0, :, 1] + 0.3 * own.normal(size=N))[order],
            "domain": np.array(["north", "south"])[(groups // 2) % 2][order],
        },
        groups=np.array([guise.group(g) for g in groups])[order],
        texts=[texts[i] for i in order] if guise.texts else None,
        lengths=[len(texts[i]) for i in order],
        lens=lens_table(difference[:, order]),
        model_name=f"model {seed}",
    )


def one(name: str, **options: Any) -> Callable[[Guise], Any]:
    def run(guise: Guise) -> Any:
        return getattr(lp, name)(world(guise), **options, **guise.options)

    return run


def two(name: str, **options: Any) -> Callable[[Guise], Any]:
    def run(guise: Guise) -> Any:
        stores = {"first": world(guise), "second": world(guise, seed=1)}
        return getattr(lp, name)(stores, **options, **guise.options)

    return run


ANALYSES: dict[str, Callable[[Guise], Any]] = {
    "linear_probe": one("linear_probe", label="y", n_folds=3, **FEW),
    "linear_probe of values": one("linear_probe", label="grade", n_folds=3, **FEW),
    "linear_probe of three": one("linear_probe", label="kind", n_folds=2, **FEW),
    "nested_cv": one("nested_cv", label="y", n_folds=4, repeats=1),
    "learning_curve": one("learning_curve", label="y", shares=(0.5, 1.0), n_draws=1, n_bootstrap=20),
    "leave_one_domain_out": one("leave_one_domain_out", label="y", domain="domain", n_folds=2, **FEW),
    "generalisation_matrix": two("generalisation_matrix", label="y", n_bootstrap=20, method="mass_mean"),
    "separation": one("separation", label="y", **FEW),
    "unsupervised": one("unsupervised", label="y", n_permutations=20),
    "aqi": one("aqi", label="y", n_seeds=1, **FEW),
    "topic_control": one("topic_control", label="y", n_draws=20, min_similarity=0.0),
    "drift": one("drift", label="kind", start="a", end="b", third="c", n_bootstrap=20),
    "suppression": one("suppression", target="answer", foil="foil", by="y", n_splits=4, **FEW),
    "compare": two("compare", label="domain", target="answer", foil="foil", by="domain", n_splits=4, **FEW),
}
KEYS = (
    *("model", "reference", "subset", "minus", "site", "layer", "method", "space", "metric"),
    *("train_on", "test_on", "share", "target"),
)
THREADED = ("linear_probe", "nested_cv", "learning_curve", "generalisation_matrix")


def numbers(result: Any) -> pd.DataFrame:
    """The table's numbers, rows named by what they are about, in one order."""
    table = result.table.copy()
    names = [name for name in KEYS if name in table]
    key = table[names].map(str).agg(" | ".join, axis=1)
    kept = [
        c
        for c in ("estimate", "lo", "hi", "p", "p_familywise", "null_mean", "null_lo", "n", "n_groups")
        if c in table
    ]
    return table[kept].astype(float).set_axis(key).sort_index()


def same(one: Any, other: Any, rtol: float = 2e-4) -> None:
    first, second = numbers(one), numbers(other)
    assert list(first.index) == list(second.index)
    for column in first:
        np.testing.assert_allclose(
            first[column], second[column], rtol=rtol, atol=1e-6, err_msg=column, equal_nan=True
        )


SHUFFLE = np.random.default_rng(11).permutation(N)
REVERSED = "other {}".format


def turned(group: int) -> str:
    return REVERSED(99 - group)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return {}


def as_it_is(plain: dict[str, Any], name: str) -> Any:
    if name not in plain:
        plain[name] = ANALYSES[name](Guise())
    return plain[name]


@pytest.mark.parametrize("name", ANALYSES)
def test_neither_the_order_of_rows_nor_names_of_groups_decide(plain, name):
    same(as_it_is(plain, name), ANALYSES[name](Guise(order=SHUFFLE, group=turned)))


@pytest.mark.parametrize(
    "name", ("linear_probe", "nested_cv", "separation", "unsupervised", "aqi", "suppression")
)
def test_neither_do_names_of_classes(plain, name):
    first = as_it_is(plain, name)
    other = ANALYSES[name](Guise(classes=("class 1", "class 2")))
    table = other.table.copy()
    for was, is_now in (("class 1", "no"), ("class 2", "yes")):
        for column in {"subset", "minus"} & set(table):
            table[column] = table[column].str.replace(was, is_now)
    from dataclasses import replace

    same(first, replace(other, table=table))


@pytest.mark.parametrize("name", ("separation", "unsupervised", "aqi"))
def test_which_class_comes_first_is_nothing_to_an_index(plain, name):
    same(as_it_is(plain, name), ANALYSES[name](Guise(classes=("zebra", "ant"))))


@pytest.mark.parametrize("name", THREADED)
def test_threads_change_nothing(plain, name):
    same(as_it_is(plain, name), ANALYSES[name](Guise(options={"threads": 1})), rtol=1e-6)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_number_lies_in_its_range_or_a_note_says_why_not(plain, name):
    for row in as_it_is(plain, name).table.to_dict("records"):
        what = quantity(str(row["metric"]))
        contrast = pd.notna(row.get("minus"))
        between = pd.notna(row.get("reference")) and row.get("site") == "lens" and row["metric"] != "lens_kl"
        lo, hi = (what.difference() if contrast or between else what).range
        estimate, noted = row["estimate"], pd.notna(row.get("note"))
        assert lo <= estimate <= hi or (pd.isna(estimate) and noted), (name, row)
        for bound in (row.get("lo", np.nan), row.get("hi", np.nan)):
            assert pd.isna(bound) or lo <= bound <= hi, (name, row)
        if pd.notna(row.get("lo", np.nan)) and pd.notna(row.get("hi", np.nan)):
            assert row["lo"] - 1e-9 <= estimate <= row["hi"] + 1e-9, (name, row)
            if what.unit == "share" and (lo, hi) == (0, 1):
                assert row["lo"] < row["hi"], (name, row)
        if pd.notna(row.get("null_lo", np.nan)):
            assert row["null_lo"] - 1e-9 <= row["null_mean"] <= row["null_hi"] + 1e-9, (name, row)


def test_a_store_on_disk_says_what_its_arrays_say(tmp_path):
    model = tiny("llama")
    disk = tiny_store(model, path=tmp_path / "a.h5")
    memory = tiny_store(model)
    few = {"n_bootstrap": 20, "n_permutations": 20, "n_splits": 4}
    results = [
        lp.suppression(store, target="answer", foil="foil", groups=None, **few) for store in (disk, memory)
    ]
    same(*results)
    results = [
        lp.unsupervised(store, label="sensitive", groups=None, n_permutations=20) for store in (disk, memory)
    ]
    same(*results)
