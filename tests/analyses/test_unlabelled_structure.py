"""Drift, topic control and the measures that look at no label."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, pairwise

from layerprobe.analyses.result.saving import to_svg
from layerprobe.analyses.separation.drift import drift
from layerprobe.analyses.separation.structure import anisotropy, effective_rank, participation_ratio, two_nn
from layerprobe.analyses.separation.topic_control import topic_control
from layerprobe.analyses.separation.topic_words import match_by_words
from layerprobe.analyses.separation.unsupervised import _agreement, unsupervised
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError


def three_sets(position, n=120, width=16, seed=0):
    rng = np.random.default_rng(seed + 1)
    kind = np.arange(n) % 3
    x = rng.normal(size=(2, n, width))
    x[1, :, 0] += 5 * np.array([0, 1, position])[kind]
    x[0, :, 0] += 5 * np.array([0, 1, 0])[kind]
    return from_arrays({"resid_post": x}, labels={"kind": np.array(["safe", "unsafe", "jailbreak"])[kind]})


def test_drift_finds_the_planted_position_layer_by_layer():
    options = {"label": "kind", "start": "safe", "end": "unsafe", "third": "jailbreak", "groups": None}
    result = drift(three_sets(0.7, n=240), n_bootstrap=200, **options)
    rows = result.table[result.table["metric"] == "drift_position"].set_index("layer")
    assert rows.loc[0, "lo"] < 0 < rows.loc[0, "hi"]
    assert rows.loc[1, "lo"] < 0.7 < rows.loc[1, "hi"]
    assert rows.loc[1, "hi"] - rows.loc[1, "lo"] < 0.4
    (finding,) = result.findings
    assert finding.verdict == "found" and finding.layer == 1  # nearer to unsafe, at the last layer
    assert {number.at for number in finding.numbers} == {"resid_post[0]", "resid_post[1]"}
    assert "jailbreak between safe and unsafe" in str(result.summary())
    assert "jailbreak between safe and unsafe" in to_svg(result.plot())
    with pytest.raises(LayerprobeError, match="no rows 'other'"):
        drift(three_sets(0.7), **{**options, "third": "other"})
    with pytest.raises(LayerprobeError, match="three different values"):
        drift(three_sets(0.7), **{**options, "third": "unsafe"})


def test_a_set_off_the_axis_is_told_apart_from_one_in_between():
    store = three_sets(0.5)
    x = np.array(store.activations("resid_post"))
    x[1, store.labels("kind") == "jailbreak", 3] += 20
    moved = from_arrays({"resid_post": x}, labels={"kind": store.labels("kind")})
    found = [
        drift(s, label="kind", start="safe", end="unsafe", third="jailbreak", groups=None, n_bootstrap=20)
        .table.query("metric == 'drift_off_axis' and layer == 1")["estimate"]
        .item()
        for s in (store, moved)
    ]
    assert found[0] < 0.6 and found[1] > 3


TOPICS = [
    "bread oven flour",
    "engine wheel brake",
    "garden seed soil",
    "guitar chord song",
    "river boat fish",
]


def topical(n=300, *, safety=0.0, confounded=True, seed=0):
    """The class goes with the topic of the prompt (confounded); activations hold topic and safety."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    low, high = (
        rng.choice(5, size=n, p=p) for p in ([0.5, 0.3, 0.1, 0.05, 0.05], [0.05, 0.05, 0.1, 0.3, 0.5])
    )
    topic = np.where(y, high, low) if confounded else rng.integers(5, size=n)
    texts = [" ".join(rng.permutation(TOPICS[t].split())) + f" n{i % 7}" for i, t in enumerate(topic)]
    x = rng.normal(size=(1, n, 20))
    x[0, :, :5] += 4 * np.eye(5)[topic]
    x[0, :, 6] += safety * y
    return from_arrays({"resid_post": x}, labels={"unsafe": y}, texts=texts)


def test_topic_alone_does_not_survive_matching_and_safety_does():
    confounded = topical(safety=0.0)
    result = topic_control(confounded, label="unsafe", groups=None, min_similarity=0.5)
    table = result.table
    share = table[table["metric"] == "surviving_share"].iloc[0]
    assert share["lo"] < 0 < share["hi"] and share["estimate"] < 0.25
    matched = table[(table["metric"] == "silhouette") & (table["subset"] == "topic-matched")].iloc[0]
    assert matched["p"] > 0.05
    words = result.frames["words"].set_index("subset")["auroc"]
    assert words["unmatched"] > 0.75 and words["topic-matched"] < 0.65
    true = topic_control(topical(safety=3.0), label="unsafe", groups=None, min_similarity=0.5)
    row = true.table[(true.table["metric"] == "silhouette") & (true.table["subset"] == "topic-matched")].iloc[
        0
    ]
    assert row["p_familywise"] <= 0.05
    assert true.table[true.table["metric"] == "surviving_share"]["lo"].iloc[0] > 0.2
    (survived,), (gone,) = true.findings, result.findings
    assert survived.verdict == "found" and gone.verdict == "not_found" and survived.layers == (0,)
    assert "topic-matched" in to_svg(true.plot())


def test_pairs_are_one_to_one_and_share_words():
    store = topical()
    pairs, similarity, _ = match_by_words(store.texts, store.labels("unsafe"), min_similarity=0.5)
    assert len(np.unique(pairs)) == pairs.size and (similarity >= 0.5).all()
    assert set(store.labels("unsafe")[pairs[:, 0]]) == {0}


def test_classes_that_cannot_be_matched_are_said_not_to_be():
    """Every prompt of one class says please: no matching can hide it."""
    store = topical(confounded=False)
    texts = [text + " please" * int(y) for text, y in zip(store.texts, store.labels("unsafe"), strict=True)]
    marked = from_arrays(
        {"resid_post": store.activations("resid_post")}, labels={"y": store.labels("unsafe")}, texts=texts
    )
    result = topic_control(marked, label="y", groups=None, n_draws=40)
    (finding,) = result.findings
    assert finding.verdict in ("undecided", "not_found")
    told = {number.name: number.value for number in finding.numbers}
    assert told["AUROC of words alone, topic-matched"] > 0.65


def test_topic_control_says_what_it_needs():
    store = topical()
    bare = from_arrays({"resid_post": store.activations("resid_post")}, labels={"y": store.labels("unsafe")})
    with pytest.raises(LayerprobeError, match="no texts"):
        topic_control(bare, label="y", groups=None)
    with pytest.raises(LayerprobeError, match="pairs reach min_similarity"):
        topic_control(store, label="unsafe", groups=None, min_similarity=1.1)


def test_clusters_found_without_labels_agree_where_there_are_clusters():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = rng.normal(size=(2, 120, 10))
    x[1, :, :3] += 12 * np.eye(3)[y]
    store = from_arrays({"resid_post": x}, labels={"kind": y}, texts=[f"prompt <b>{i}" for i in range(120)])
    result = unsupervised(store, label="kind", groups=None, n_permutations=60)
    ami = result.table[result.table["metric"] == "adjusted_mutual_info"].set_index(["layer", "method"])
    for method in ("kmeans", "gmm"):
        assert ami.loc[(1, method), "estimate"] > 0.95 and ami.loc[(1, method), "p_familywise"] <= 0.05
        assert ami.loc[(0, method), "p_familywise"] > 0.05
    assert len(result.frames["projection"]) == 240
    assert [finding.verdict for finding in result.findings if finding.lead] == ["found"]
    assert all(finding.layers == (1,) for finding in result.findings if finding.claim.name == "agrees")
    assert "intrinsic dimension" in to_svg(result.plot())


def test_agreement_of_many_permutations_equals_scikit_learn():
    rng = np.random.default_rng(0)
    codes, found = rng.integers(3, size=90), rng.integers(4, size=90)
    permuted = np.stack([rng.permutation(codes) for _ in range(5)])
    ours = _agreement(found, codes, permuted)
    for i, one in enumerate([codes, *permuted]):
        assert ours["adjusted_rand"][i] == pytest.approx(adjusted_rand_score(one, found), abs=1e-12)
        assert ours["adjusted_mutual_info"][i] == pytest.approx(
            adjusted_mutual_info_score(one, found), abs=1e-9
        )


@pytest.mark.parametrize("dimension", [1, 3, 6])
def test_two_nn_reads_the_planted_dimension(dimension):
    rng = np.random.default_rng(dimension)
    x = rng.uniform(size=(1500, dimension)) @ np.linalg.qr(rng.normal(size=(40, dimension)))[0].T
    assert two_nn(x) == pytest.approx(dimension, rel=0.15)
    assert two_nn(np.concatenate([x, x[:50]])) == pytest.approx(two_nn(x), rel=1e-9)


def test_rank_and_anisotropy_against_their_definitions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8)) * np.arange(1, 9) + 2
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    share = values / values.sum()
    assert effective_rank(x) == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert participation_ratio(x) == pytest.approx(values.sum() ** 2 / (values**2).sum())
    cosine = pairwise.cosine_similarity(x)
    assert anisotropy(x) == pytest.approx(cosine[~np.eye(50, dtype=bool)].mean())
    assert effective_rank(rng.normal(size=(5, 40))) <= 4.0001


def test_groups_have_one_partner_each_so_that_whole_groups_can_change_classes():
    """Two of a group matched into two other groups would be swapped apart: 42 % false alarms, not 5."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 3)
    texts = [" ".join(rng.choice([*"abcdefghij"], 5)) for _ in groups]
    for codes in (groups % 2, np.tile([0, 1, 1], 30)):  # between groups, and within them
        pairs, similarity, partners = match_by_words(texts, codes, groups, min_similarity=0.0)
        assert (codes[pairs] == [0, 1]).all() and len(np.unique(pairs)) == pairs.size == 2 * len(similarity)
        of = {}
        for (one, other), unit in zip(groups[pairs], partners, strict=True):
            assert one != other
            assert of.setdefault(one, unit) == of.setdefault(other, unit) == unit
