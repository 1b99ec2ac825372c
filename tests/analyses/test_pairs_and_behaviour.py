import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lens_worlds import lens_table

from layerprobe.analyses.behaviour.bbq import bbq_pairs, main
from layerprobe.analyses.behaviour.contrastive import pairs_from_table, show
from layerprobe.analyses.behaviour.counts import identity_gap, mcnemar, pair_counts, pair_rates, rate_parts
from layerprobe.analyses.behaviour.on_pairs import behaviour, pair_members, parse_answer
from layerprobe.analyses.result.saving import to_svg
from layerprobe.analyses.statistics.intervals import benjamini_hochberg
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError

COUNTS = {"Religion": (300, 256), "Nationality": (770, 626), "Sexual_orientation": (216, 210)}


@pytest.fixture(scope="module")
def bbq(test_data):
    return {name: bbq_pairs(test_data / "data" / "bbq" / f"{name}.jsonl") for name in COUNTS}


def row(example, right, wrong, *, version=1, stereotyped="Muslim", polarity="neg"):
    """One disambiguated BBQ-style row in which the evidence names `right`."""
    return {
        "example_id": example,
        "question_index": "1",
        "question_polarity": polarity,
        "context_condition": "disambig",
        "category": "Religion",
        "answer_info": {"ans0": [right, right], "ans1": [wrong, wrong], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"stereotyped_groups": [stereotyped]},
        "context": f"A {right} man met a {wrong} man. The {right} man left.",
        "question": "Who left?",
        "ans0": f"The {right} man",
        "ans1": f"The {wrong} man",
        "ans2": "Unknown",
        "label": 0,
    }


def write(path, rows):
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


@pytest.mark.parametrize("name", COUNTS)
def test_every_exact_mirrored_twin_is_found_and_the_rest_listed(bbq, name):
    pairs, (candidates, made) = bbq[name], COUNTS[name]
    assert pairs.counts.iloc[0].to_dict() == {
        "category": name,
        "candidates": candidates,
        "pairs": made,
        "left_out": candidates - made,
    }
    assert len(pairs.left_out) == candidates - made
    assert len(pairs.table) == made * 4
    assert pairs.table["id"].is_unique
    direct = pairs.table[pairs.table["item"] == "direct"]
    assert set(direct["answer"]) == {"yes"}
    assert set(pairs.table[pairs.table["item"] == "reversed"]["answer"]) == {"no"}


@pytest.mark.parametrize("name", COUNTS)
def test_members_of_a_pair_are_one_text_with_two_names_exchanged(bbq, name):
    table, seen = bbq[name].table, 0
    for _, pair in list(table.groupby("pair"))[:80]:
        target, contrast = (pair[pair["role"] == role].iloc[0] for role in ("target", "contrast"))
        words = [re.sub(r"[^\w ]", " ", member["prompt"]).split() for member in (target, contrast)]
        if len(words[0]) == len(words[1]):  # names of two words shift the rest
            seen += 1
            changed = {tuple(sorted(pair)) for pair in zip(*words, strict=True) if pair[0] != pair[1]}
            assert len(changed) == 1
        assert target["group"] == contrast["group"] and target["polarity"] == contrast["polarity"]
        assert f"Is it {target['person']}?" in target["prompt"]
    assert seen >= 60


def test_articles_can_be_forgiven(test_data):
    pairs = bbq_pairs(test_data / "data" / "bbq" / "Religion.jsonl", articles=True)
    assert pairs.counts["pairs"].item() == 300


def test_the_target_is_about_the_stereotyped_group(tmp_path):
    file = write(tmp_path / "a.jsonl", [row(0, "Muslim", "Hindu"), row(1, "Hindu", "Muslim")])
    table = bbq_pairs(file).table.set_index(["item", "role"])
    assert table.loc[("direct", "target"), "person"] == "the Muslim man"
    assert table.loc[("direct", "contrast"), "person"] == "the Hindu man"
    assert table.loc[("reversed", "target"), "person"] == "the Hindu man"
    assert table.loc[("direct", "target"), "prompt"].endswith(
        "Who left? Is it the Muslim man?\nAnswer yes or no:"
    )


@pytest.mark.parametrize(
    "prime, primed", [("both", {"target", "contrast"}), ("target", {"target"}), ("contrast", {"contrast"})]
)
def test_a_priming_sentence_goes_where_it_is_told(tmp_path, prime, primed):
    file = write(tmp_path / "a.jsonl", [row(0, "Muslim", "Hindu"), row(1, "Hindu", "Muslim")])
    table = bbq_pairs(file, priming="Be fair.", prime=prime).table
    assert set(table[table["prompt"].str.startswith("Be fair. A ")]["role"]) == primed


def test_a_priming_sentence_without_a_place_is_refused(tmp_path):
    with pytest.raises(LayerprobeError, match="say which prompts"):
        bbq_pairs(tmp_path / "a.jsonl", priming="Be fair.")


def test_files_that_are_not_bbq_are_named_with_the_line(tmp_path):
    with pytest.raises(LayerprobeError, match=r"a\.jsonl, line 2"):
        bbq_pairs(write(tmp_path / "a.jsonl", [row(0, "Muslim", "Hindu"), {"context_condition": "disambig"}]))
    with pytest.raises(LayerprobeError, match="no file"):
        bbq_pairs(tmp_path / "missing.jsonl")


def test_the_command_prints_counts_and_pairs(tmp_path, capsys):
    file = write(tmp_path / "a.jsonl", [row(0, "Muslim", "Hindu"), row(1, "Hindu", "Muslim")])
    main([str(file), "--show", "1", "--out", str(tmp_path / "out.jsonl")])
    assert "| a | 1 | 1 | 0 |" in capsys.readouterr().out
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4


def test_prompts_are_ready_for_capture(tmp_path):
    file = write(tmp_path / "a.jsonl", [row(0, "Muslim", "Hindu"), row(1, "Hindu", "Muslim")])
    prompts = bbq_pairs(file).prompts()
    assert len(prompts) == 4 and set(prompts.labels["role"]) == {"target", "contrast"}


def test_plain_tables_are_checked():
    good = [
        {"prompt": w, "answer": "yes", "foil": "no", "pair": "p", "role": r}
        for w, r in (("x", "target"), ("y", "contrast"))
    ]
    assert "**p**" in show(pairs_from_table(good))
    with pytest.raises(LayerprobeError, match="foil"):
        pairs_from_table(pd.DataFrame(good).drop(columns="foil"))
    with pytest.raises(LayerprobeError, match="one target and one contrast"):
        pairs_from_table(good[:1])
    with pytest.raises(LayerprobeError, match="same evidence"):
        pairs_from_table([good[0], {**good[1], "answer": "no"}])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_published_identity_holds_on_any_table(outcomes):
    target, contrast = np.array(outcomes).T
    counts = pair_counts(target, contrast)
    gap = identity_gap(counts)
    assert np.isnan(gap) or gap < 1e-12
    a, b, c, d = (
        int(np.sum(cell))
        for cell in (target & contrast, target & ~contrast, ~target & contrast, ~target & ~contrast)
    )
    assert (counts.a, counts.b, counts.c, counts.d) == (a, b, c, d)
    expected = {
        "accuracy_target": (a + b, a + b + c + d),
        "accuracy_contrast": (a + c, a + b + c + d),
        "mar_conditional": (c, a + c),
        "mar_all_pairs": (c, a + b + c + d),
        "br_conditional": (b, a + b),
        "br_all_pairs": (b, a + b + c + d),
    }
    rates, drawn = pair_rates(counts), rate_parts(target, contrast)
    assert set(rates) == set(drawn) == set(expected)
    for name, (part, whole) in expected.items():
        value = part / whole if whole else np.nan
        assert rates[name] == pytest.approx(value, nan_ok=True)
        hits, among = drawn[name]
        assert (hits.sum(), among.sum()) == (part, whole) and not (hits & ~among).any()


def test_mcnemar_is_the_binomial_test():
    from scipy.stats import binom

    assert mcnemar(3, 9) == pytest.approx(2 * binom.cdf(3, 12, 0.5))
    assert mcnemar(0, 0) == 1


def store(target_right, contrast_right, name="instruct"):
    n = len(target_right)
    last = np.where(np.r_[target_right, contrast_right], 2.0, -2.0)
    return from_arrays(
        {"resid_post": np.zeros((8, 2 * n, 2), np.float32)},
        lens=lens_table(np.tile(last, (8, 1))),
        labels={
            "role": ["target"] * n + ["contrast"] * n,
            "answer": ["yes"] * 2 * n,
            "foil": ["no"] * 2 * n,
            "category": ["x", "y"] * n,
        },
        pairs=[f"p{i}" for i in range(n)] * 2,
        groups=[i // 2 for i in range(n)] * 2,
        model_name=name,
    )


def test_counts_rates_and_tests_of_several_models():
    rng = np.random.default_rng(0)
    contrast = rng.random(200) < 0.9
    fails = contrast & (rng.random(200) < 0.4)
    result = behaviour(
        {"base": store(contrast, contrast), "instruct": store(contrast & ~fails, contrast)}, by=["category"]
    )
    table = result.table
    part = table[table["model"] == "instruct"]
    assert part[part["metric"] == "c"]["estimate"].sum() == fails.sum()
    tests = table[table["metric"] == "mcnemar"]
    np.testing.assert_allclose(tests["q"], benjamini_hochberg(tests["p"].to_numpy(float)))
    assert len(tests) == 4 and (tests["q"].astype(float) > tests["p"].astype(float)).any()
    base = table[(table["model"] == "base") & (table["metric"] == "mar_conditional")]
    assert (base["estimate"] == 0).all()
    mar = part[part["metric"] == "mar_conditional"]
    assert ((mar["lo"] < 0.4) & (mar["hi"] > 0.4)).all()
    verdicts = {(f.model, f.subset): f.verdict for f in result.findings}
    assert verdicts == {
        ("base", "category=x"): "not_found",
        ("base", "category=y"): "not_found",
        ("instruct", "category=x"): "found",
        ("instruct", "category=y"): "found",
    }
    assert [f.model for f in result.findings if f.lead] == ["base", "instruct"]
    mine = [f for f in result.findings if f.model == "instruct"]
    numbers = [{number.name: number.value for number in finding.numbers} for finding in mine]
    assert [one["pairs"] for one in numbers] == [100, 100]
    assert sum(one["only the contrast in"] for one in numbers) == fails.sum()
    assert mine[0].test.looks == 4 and "exact McNemar p" in str(result.summary())
    alone = behaviour(store(contrast, contrast))
    assert " looks" not in str(alone.summary())
    for drawn in (alone, result):
        svg = to_svg(drawn.plot())
        assert "MAR: target wrong" in svg and "BR: contrast wrong" in svg and "NaN" not in svg


def test_a_rate_over_no_pairs_is_not_judged():
    never = np.zeros(8, dtype=bool)
    (finding,) = behaviour(store(~never, never), n_bootstrap=50).findings
    assert finding.verdict == "not_tested" and finding.estimate is None and finding.test is None


def test_generated_text_is_judged_strictly():
    both = np.ones(4, dtype=bool)
    texts = ["Yes.", "yes, surely", "It is yes", "No", " yes", "**Yes**", "Answer: yes", "yes or no"]
    result = behaviour(store(both, both), generations={"instruct": texts}, n_bootstrap=50)
    part = result.table[result.table["method"] == "generated"].set_index("metric")["estimate"]
    assert (part["a"], part["b"], part["c"], part["d"]) == (2, 0, 1, 1)
    assert parse_answer("yesterday", ["yes", "no"]) is None


def test_pairs_must_be_whole():
    whole = store(np.ones(3, bool), np.ones(3, bool))
    assert pair_members(whole).shape == (3, 2)
    broken = from_arrays(
        {"resid_post": np.zeros((1, 2, 2), np.float32)},
        labels={"role": ["target", "target"]},
        pairs=["p", "p"],
    )
    with pytest.raises(LayerprobeError, match="one target and one contrast"):
        pair_members(broken)
