"""What must be found in planted worlds: one check for every analysis and world that it can see."""

from collections.abc import Callable
from typing import Any

import numpy as np
from worlds import lens, models
from worlds.arrays import FIRST, SHARED, WIDTH
from worlds.calls import CALLS, PLANTED

from layerprobe.analyses.result.findings import Finding

WORLDS = {world.name: world for world in PLANTED}
READABLE = f"readable from layer {FIRST}"
FROM_FIRST = tuple(range(FIRST, 5))


def run(kind: str, world: str, seed: int = 0, **more: Any) -> tuple[Any, list[Finding]]:
    """Result and findings of one analysis in one planted world."""
    result = CALLS[kind].run(WORLDS[world].make(seed), seed=seed, **more)
    return result, list(result.findings)


def one(findings: list[Finding], **wanted: Any) -> Finding:
    """The one finding with these fields; `claim` by its name."""
    claim = wanted.pop("claim", None)
    (found,) = [
        f
        for f in findings
        if (claim is None or f.claim.name == claim) and all(getattr(f, k) == v for k, v in wanted.items())
    ]
    return found


def reads(kind: str, claim: str, **wanted: Any) -> Callable[[], None]:
    """Whether a reader of labels finds it where it was put, and nowhere else."""

    def check() -> None:
        _, findings = run(kind, READABLE)
        found = one(findings, claim=claim, **wanted)
        assert found.verdict == "found" and found.layers == FROM_FIRST, found
        assert found.layer is None or found.layer >= FIRST

    return check


def scores(kind: str, metric: str, chance: float) -> Callable[[], None]:
    """Whether scores that are not tested are high where the label was put and at chance before."""

    def check() -> None:
        result, _ = run(kind, READABLE)
        rows = result.table[result.table["metric"] == metric]
        by_layer = rows.groupby("layer")["estimate"].mean()
        assert by_layer[by_layer.index >= FIRST].min() > chance + 0.2
        assert (by_layer[by_layer.index < FIRST] - chance).abs().max() < 0.2

    return check


def every_domain() -> None:
    _, findings = run("leave_one_domain_out", READABLE)
    holds = [f for f in findings if f.claim.name == "holds_on_unseen_domain"]
    assert {f.subset: (f.verdict, f.layers) for f in holds} == {
        "domain=north": ("found", FROM_FIRST),
        "domain=south": ("found", FROM_FIRST),
    }


def travels() -> None:
    _, findings = run("generalisation_matrix", READABLE)
    assert {f.verdict for f in findings} == {"found"} and all(f.layer >= FIRST for f in findings)


def topic() -> None:
    _, findings = run("topic_control", READABLE)
    (found,) = findings
    assert found.verdict in ("found", "undecided") and found.layers == FROM_FIRST


def aqi() -> None:
    result, findings = run("aqi", READABLE)
    assert one(findings, subset=None).verdict == "found"
    weight = result.frames["weights"].groupby("layer")["weight"].mean()
    assert weight[weight.index >= FIRST].sum() > 0.8


def beside_length() -> None:
    """Read, and said to be no more than the length of the prompt tells."""
    _, findings = run("linear_probe", "length carries the label", baselines=True)
    assert one(findings, claim="readable").verdict == "found"
    assert one(findings, claim="beyond_length").verdict == "not_found"


def separated() -> None:
    """Two clusters four standard deviations apart in one of six dimensions."""
    result, findings = run("separation", "a cluster")
    assert {f.verdict for f in findings} == {"found"} and all(f.layers == (0, 1, 2) for f in findings)
    raw = result.table[result.table["space"] == "raw"].set_index(["metric", "layer"])["estimate"]
    d, width = 4.0 * np.sqrt((1 + 0.85**2) / 2), 6  # the second class holds two places: 0.85 and 1
    expected = np.sqrt(2 * width) / np.sqrt(d**2)  # spread within over distance of centroids, roughly
    assert abs(raw["davies_bouldin", 0] - expected) < 0.35


def drifted() -> None:
    _, findings = run("drift", "a cluster")
    (found,) = findings
    assert found.verdict == "found" and abs(found.estimate - 0.85) < 0.3


def shared() -> None:
    """SHARED of WIDTH equal dimensions: their CKA is that share, and what a rotation explains its square."""
    result, _ = run("compare", "a shared subspace", max_rows=300)
    for metric, truth in (("cka_debiased", SHARED / WIDTH), ("procrustes_r2", (SHARED / WIDTH) ** 2)):
        rows = result.table[result.table["metric"] == metric]
        assert len(rows) >= 3 and (rows["estimate"] - truth).abs().max() < 0.06, metric


def moved() -> None:
    _, findings = run("compare", "classes moved by tuning")
    found = one(findings, claim="class difference changed")
    assert found.verdict == "found" and found.layers == FROM_FIRST


def a_reward() -> None:
    """A head along the first axis rests on the label there, and on nothing else."""
    draw = WORLDS["a cluster"].make(0)
    draw.more["head"] = np.eye(6)[0]
    findings = CALLS["reward_decomposition"].run(draw).findings
    assert one(findings, claim="explained").verdict == "found"


def overrides() -> None:
    for name in ("a late override", "an override on half of the prompts"):
        _, findings = run("suppression", name)
        sensitive = one(findings, claim="suppressed", subset="sensitive=sensitive")
        benign = one(findings, claim="suppressed", subset="sensitive=benign")
        assert benign.verdict == "not_found", name
        differs = one(findings, claim="suppression differs")
        assert (differs.verdict, differs.minus) == ("found", "sensitive=benign") and differs.estimate > 0
        if name == "a late override":
            assert sensitive.verdict == "found"
            onset = {number.name: number.value for number in sensitive.numbers}["lead lost late, at layer"]
            assert abs(onset - lens.LATE) <= 0.5
        else:
            assert sensitive.verdict in ("found", "undecided")


def early() -> None:
    _, findings = run("suppression", "an early override")
    told = one(findings, claim="suppressed", subset="sensitive=sensitive")
    names = [number.name for number in told.numbers]
    assert told.verdict == "found" and "lead lost early, not late, at layer" in names, told


def models_differ() -> None:
    _, findings = run("compare", "a late override")
    assert one(findings, claim="suppression differs", subset="sensitive=sensitive").verdict == "found"
    assert one(findings, claim="suppression differs", subset="sensitive=benign").verdict == "not_found"
    depends = one(findings, claim="change depends on the prompts")
    assert (depends.verdict, depends.minus) == ("found", "sensitive=benign") and depends.estimate > 0


def by_template(world: str, tuning: bool) -> Callable[[], None]:
    """Whether only the effects that were planted are found."""

    def check() -> None:
        _, findings = run("two_by_two", world)
        for f in findings:
            if f.claim.name == "suppression differs" and f.subset == "sensitive=sensitive":
                is_tuning = f.model.split("/")[1] == f.reference.split("/")[1]
                assert (f.verdict == "found") == (is_tuning == tuning), f
        together = [f for f in findings if f.claim.name == "tuning and template interact"]
        assert together and all(f.verdict != "found" for f in together)

    return check


def of_pairs() -> None:
    _, findings = run("contrast_probe", "truth of pairs")
    found = one(findings, claim="readable")
    assert found.verdict == "found" and found.layer == 1


def at_a_token() -> None:
    _, findings = run("token_probe", "one token tells", method="multimax", steps=100)
    found = one(findings, claim="readable")
    assert found.verdict == "found" and found.layers == (1,)


def beyond_types() -> None:
    _, findings = run("selectivity", "a label beyond word types")
    found = one(findings, claim="selective")
    assert found.verdict == "found" and found.layer == 1


def misfires() -> None:
    _, findings = run("behaviour", "misfired targets")
    found = next(f for f in findings if f.lead)
    assert found.verdict == "found" and found.lo < 0.6 < found.hi


HEAD = "head {}.{}".format(*models.WRITES_NO)


def by_parts(kind: str) -> Callable[[], None]:
    """Whether the head that was planted is the part that does most, and is found."""

    def check() -> None:
        # a mean ablation leaves in place what is the same on every prompt
        more = {"attribution": {}, "ablation": {"how": "zero"}, "patching": {}}[kind]
        draw = WORLDS["a head writes the foil"].make(0)
        call = CALLS[kind].run
        given = {"source": draw.more["source"]} if kind == "patching" else {}
        result = call(draw, **more, **given)
        frame = result.frames.get("map", result.table)
        parts = frame[frame["component"].astype(str).str.startswith(("head", "mlp"))]
        assert parts.loc[parts["estimate"].abs().idxmax(), "component"] == HEAD
        assert [f.verdict for f in result.findings if f.lead] == ["found"]

    return check


def cause() -> None:
    result, findings = run("causal", "a head writes the foil")
    assert findings[0].verdict == "found" and HEAD in result.provenance["chosen"]


def readout() -> None:
    result, _ = run("mean_difference_readout", "a direction of refusal")
    tokens = result.frames["tokens"]
    assert tokens[tokens["layer"] == 2].iloc[0]["token"] == "no"
    assert result.table.set_index("layer")["estimate"][2] > 0.99


def refusal() -> None:
    draw = WORLDS["a direction of refusal"].make(0)
    result = CALLS["refusal_direction"].run(draw, max_kl=0.2, positions=(-1,))
    chosen = result.directions["resid_pre", result.provenance["layer"]]
    assert float(chosen @ draw.more["direction"]) > 0.8


PLANTED_CHECKS: dict[str, Callable[[], None]] = {
    "linear_probe": reads("linear_probe", "readable"),
    "linear_probe beside length": beside_length,
    "preference_dimensions": reads("preference_dimensions", "readable", target="label"),
    "score_heads": reads("score_heads", "readable"),
    "nested_cv": scores("nested_cv", "auroc", 0.5),
    "learning_curve": scores("learning_curve", "auroc", 0.5),
    "leave_one_domain_out": every_domain,
    "generalisation_matrix": travels,
    "separation": separated,
    "unsupervised": reads("unsupervised", "agrees", method="kmeans"),
    "topic_control": topic,
    "aqi": aqi,
    "drift": drifted,
    "compare, a shared subspace": shared,
    "compare, classes": moved,
    "compare, suppression": models_differ,
    "reward_decomposition": a_reward,
    "contrast_probe": of_pairs,
    "token_probe": at_a_token,
    "selectivity": beyond_types,
    "suppression": overrides,
    "suppression, early": early,
    "two_by_two, template": by_template("template without tuning", tuning=False),
    "two_by_two, tuning": by_template("tuning without template", tuning=True),
    "behaviour": misfires,
    "attribution": by_parts("attribution"),
    "ablation": by_parts("ablation"),
    "patching": by_parts("patching"),
    "causal": cause,
    "mean_difference_readout": readout,
    "refusal_direction": refusal,
}
"""Analysis (and world) → check, which raises AssertionError."""
