from dataclasses import replace

import numpy as np
import pytest
from lens_worlds import EARLY, FLAT, OVERRIDDEN, world

from layerprobe.analyses.lens.suppression import suppression
from layerprobe.analyses.result.analysis import joined, read_result
from layerprobe.analyses.result.findings import ALPHA
from layerprobe.analyses.result.saving import specification, to_svg
from layerprobe.analyses.result.words import sentence
from layerprobe.analyses.statistics.resampling import exact_binomial_bound
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError


def run(store, **options):
    return suppression(
        store, target="answer", foil="foil", **{"n_bootstrap": 300, "n_permutations": 300, **options}
    )


def replace_lens(store, **fields):
    from layerprobe.cache.store.memory import from_arrays

    return from_arrays(
        {"resid_post": np.zeros((8, store.n_rows, 2), np.float32)},
        labels={"sensitive": store.labels("sensitive")},
        groups=store.groups,
        lens=replace(store.lens, **fields),
    )


def replace_labels(store, kinds):
    from layerprobe.cache.store.memory import from_arrays

    return from_arrays(
        {"resid_post": np.zeros((8, store.n_rows, 2), np.float32)},
        labels={"kind": kinds},
        groups=store.groups,
        lens=store.lens,
    )


def row(result, metric, subset, minus=None):
    table = result.table
    whose = table["minus"].isna() if minus is None and "minus" in table else True
    whose = whose if minus is None else table["minus"] == minus
    return table[(table["metric"] == metric) & (table["subset"] == subset) & whose].iloc[0]


SENSITIVE, BENIGN = "sensitive=sensitive", "sensitive=benign"


def told(result, subset, minus=None):
    """The finding of one kind of prompts, or of one minus another."""
    (finding,) = [f for f in result.findings if (f.subset, f.minus) == (subset, minus)]
    return finding


def numbers_of(finding):
    return {number.name: number for number in finding.numbers}


def test_a_planted_override_is_found_late_on_sensitive_rows_only():
    result = run(world(), by="sensitive")
    verdicts = result.frames["verdicts"].set_index("subset")
    assert verdicts.loc["sensitive=sensitive", "verdict"] == "override"
    assert verdicts.loc["sensitive=benign", "verdict"] == "none"
    assert verdicts.loc["sensitive=sensitive", "late"]
    onset = row(result, "onset_layer", "sensitive=sensitive")
    assert onset["lo"] <= 5 <= onset["hi"] and onset["estimate"] == 5
    index = row(result, "suppression_index", "sensitive=sensitive")
    assert index["lo"] < 13 < index["hi"] and index["p"] < 0.01
    benign = row(result, "suppression_index", "sensitive=benign")
    assert benign["lo"] < 0 < benign["hi"]
    gap = row(result, "suppression_index", SENSITIVE, BENIGN)
    assert gap["lo"] > 0 and gap["p"] < 0.01
    assert row(result, "divergence_layer", SENSITIVE, BENIGN)["estimate"] == 5
    assert [f.verdict for f in result.findings] == ["not_found", "found", "found"]
    override, contrast = told(result, SENSITIVE), told(result, SENSITIVE, BENIGN)
    assert (override.site, override.layer, override.estimate) == ("lens", index["layer"], index["estimate"])
    onset = numbers_of(override)["lead lost late, at layer"]
    assert onset.value == 5 and onset.lo <= 5 <= onset.hi
    assert [f for f in result.findings if f.lead] == [contrast] and contrast.estimate == gap["estimate"]
    assert numbers_of(contrast)["curves apart from layer"].value == 5
    text = str(result.summary())
    assert "no evidence of suppression" in text and "is then overtaken by the foil" in text
    assert "represented" not in text  # a lead alone does not show that
    assert all(any(ch.isdigit() for ch in sentence) for sentence in result.summary())


def test_nothing_is_found_where_nothing_happens():
    result = run(world(sensitive=FLAT), by="sensitive")
    assert set(result.frames["verdicts"]["verdict"]) == {"none"}
    assert {finding.verdict for finding in result.findings} == {"not_found"}


def test_an_early_override_is_not_called_late():
    verdict = (
        run(world(sensitive=EARLY), by="sensitive")
        .frames["verdicts"]
        .set_index("subset")
        .loc["sensitive=sensitive"]
    )
    assert verdict["verdict"] == "override" and not verdict["late"] and verdict["onset_layer"] == 3


def test_false_alarms_and_coverage_on_noise():
    n, alarms, covered = 120, 0, 0
    for seed in range(n):
        result = run(
            world(sensitive=FLAT, noise=3.0, seed=seed, n_groups=24),
            n_bootstrap=200,
            n_permutations=200,
            n_splits=4,
        )
        index = row(result, "suppression_index", "all")
        alarms += index["p"] <= 0.05
        covered += not index["lo"] <= 0 <= index["hi"]
    assert alarms <= exact_binomial_bound(n, 0.05)[1]
    assert covered <= exact_binomial_bound(n, 0.07)[1]  # percentile intervals of 24 groups are a little short


def test_a_plain_peak_minus_end_is_positive_on_noise_and_ours_is_not():
    plain, ours = [], []
    for seed in range(40):
        store = world(sensitive=[5.0] * 8, benign=[5.0] * 8, noise=3.0, seed=seed, n_groups=24)
        result = run(store, n_bootstrap=2, n_permutations=10)
        curve = result.table[result.table["metric"] == "logit_difference"]["estimate"].to_numpy()
        plain.append(curve[2:7].max() - curve[-1])
        ours.append(row(result, "suppression_index", "all")["estimate"])
    assert np.mean(plain) > 0.5
    assert abs(np.mean(ours)) < 3 * np.std(ours) / np.sqrt(len(ours))


def test_row_order_changes_nothing():
    first = run(world(), by="sensitive")
    store = world()
    order = np.random.default_rng(3).permutation(store.n_rows)
    from lens_worlds import lens_table

    from layerprobe.cache.store.memory import from_arrays

    difference = np.asarray(store.lens.candidate_logits)[..., 0, 0] * 2
    shuffled = from_arrays(
        {"resid_post": np.zeros((8, len(order), 2), np.float32)},
        labels={"sensitive": store.labels("sensitive")[order]},
        groups=store.groups[order],
        lens=lens_table(difference[:, order]),
        model_name="instruct",
    )
    second = run(shuffled, by="sensitive")
    np.testing.assert_allclose(
        first.table["estimate"].astype(float), second.table["estimate"].astype(float), atol=1e-6
    )


def test_it_reads_back_and_draws(tmp_path):
    result = run(world(), by="sensitive")
    again = read_result(result.to_parquet(tmp_path / "s.parquet"))
    assert str(again.summary()) == str(result.summary())
    assert [f.to_dict() for f in again.findings] == [f.to_dict() for f in result.findings]


def test_the_picture_shows_the_lead_and_what_is_lost_of_it_for_one_model_and_for_two():
    one = run(world(), by="sensitive")
    two = joined([one, run(world(name="base", sensitive=FLAT), by="sensitive")])
    for result, words in ((one, ("benign", "sensitive minus benign")), (two, ("base", "instruct"))):
        svg = to_svg(result.plot())
        assert all(word in svg for word in (*words, "answer = foil")) and "NaN" not in svg
    assert "instruct" in specification(two.plot())["description"]
    doubted = one.frames["trust"].assign(trusted=False)
    grey = replace(one, frames={**one.frames, "trust": doubted})
    assert "the lens is far from the output" in to_svg(grey.plot())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"target": "nothing"}, "lens_tokens"),
        ({"by": "sensitive", "contrast": "odd"}, "benign"),
        ({"groups": np.zeros(160)}, "groups"),
        ({"by": "missing"}, "missing"),
        ({"n_bootstrap": 1}, "n_bootstrap=1"),
    ],
)
def test_bad_input_names_the_next_step(options, words):
    with pytest.raises(LayerprobeError, match=words):
        suppression(world(), **{"target": "answer", "foil": "foil", "n_bootstrap": 10, **options})


def test_bootstrap_draws_without_a_small_subset_do_no_harm():
    """Four of 40 groups hold the only sensitive rows: one draw in sixty has none of them."""
    store = world()
    rare = (store.labels("sensitive") == "sensitive") & (store.groups < 4)
    store = store.select(rare | (store.labels("sensitive") == "benign"))
    result = run(store, by="sensitive", n_bootstrap=400)
    assert row(result, "divergence_layer", SENSITIVE, BENIGN)["estimate"] in (4, 5)
    index = row(result, "suppression_index", "sensitive=sensitive")
    assert np.isfinite([index["lo"], index["hi"]]).all()


def test_curves_diverge_where_a_simultaneous_band_stays_off_zero():
    from layerprobe.analyses.lens.trajectories import divergence_layer

    rng = np.random.default_rng(0)
    centre = np.array([0.0, 3.0, 0.1, 2.0, 4.0])
    draws = centre + 0.1 * rng.normal(size=(500, 5))
    found = divergence_layer(centre, draws, range(5))
    assert found[0] == 3 and np.mean(found == 3) > 0.9
    missing = np.r_[draws, np.full((9, 5), np.nan)]
    assert divergence_layer(centre, missing, range(5))[0] == 3
    assert np.isnan(divergence_layer(centre, centre + 20 * (draws - centre), range(5))[0])
    assert np.isnan(divergence_layer(centre, np.full((9, 5), np.nan), range(5))).all()


def test_a_divergence_layer_has_an_interval():
    found = row(run(world(noise=4.0), by="sensitive"), "divergence_layer", SENSITIVE, BENIGN)
    assert found["lo"] <= found["estimate"] <= found["hi"] and found["estimate"] == 5


def test_a_layer_is_trusted_where_the_lens_is_near_the_output_on_some_kind_of_prompt():
    store = world()
    kl = np.full((8, store.n_rows), 5.0, dtype=np.float32)
    kl[3:, store.labels("sensitive") == "benign"] = 0.5  # far on sensitive prompts, because of the override
    store = replace_lens(store, kl_to_final=kl)
    trust = run(store, by="sensitive").frames["trust"].set_index("layer")
    assert trust["trusted"].tolist() == [False] * 3 + [True] * 5
    assert trust["kl"].tolist() == pytest.approx([5.0] * 3 + [0.5] * 5)


@pytest.mark.parametrize(
    "end, verdict", [(-7.0, "override"), (1.0, "weakened"), (4.5, "none"), (0.0, "weakened")]
)
def test_a_verdict_says_what_is_left_of_the_lead(end, verdict):
    """A lead of six logits that is turned over, mostly lost, or hardly touched."""
    curve = [0.0, 1.0, 4.0, 6.0, 6.0, (6 + end) / 2, end, end]
    found = run(world(sensitive=curve, noise=0.3), by="sensitive").frames["verdicts"].set_index("subset")
    assert found.loc["sensitive=sensitive", "verdict"] == verdict


def test_a_part_of_the_lead_that_is_lost_is_undecided_and_not_called_nothing():
    curve = [0.0, 1.0, 4.0, 6.0, 6.0, 5.0, 4.2, 4.2]
    result = run(world(sensitive=curve, noise=0.3), by="sensitive")
    assert [f.verdict for f in result.findings] == ["not_found", "undecided", "found"]
    part = told(result, SENSITIVE)
    assert part.why == "less than half of the lead is lost"
    assert numbers_of(part)["share of the lead lost"].value == pytest.approx(0.3, abs=0.03)
    assert told(result, SENSITIVE, BENIGN).estimate > 1.5
    # its marker is hollow though interval and test both find a loss, so the caption may not name those two
    index = row(result, "suppression_index", SENSITIVE)
    assert index["lo"] > 0 and index["p_familywise"] <= ALPHA
    caption = to_svg(result.plot())
    assert "overridden or at least halved" in caption and "by interval and test" not in caption


@pytest.mark.parametrize("end", [5.9, 4.0, 3.2, 2.8, 0.5, -1.0, -4.0])
@pytest.mark.parametrize("noise", [0.3, 4.0])
def test_no_sentence_calls_more_than_half_of_the_lead_less_than_half(end, noise):
    curve = [0.0, 1.0, 4.0, 6.0, 6.0, (6 + end) / 2, end, end]
    for seed in range(3):
        finding = run(world(sensitive=curve, noise=noise, seed=seed), by="sensitive").findings[1]
        share = numbers_of(finding).get("share of the lead lost")
        if "less than half of the lead is" in finding.why:
            assert share.value < share.hi < 0.5
        elif "less than half" in finding.why:
            assert share.lo < 0.5


def test_a_lead_lost_before_the_middle_is_said_to_lie_outside_with_where_it_was():
    curve = [5.0, 6.0, -1.0, -2.0, -3.0, -3.0, -3.0, -3.0]
    finding = told(run(world(sensitive=curve), by="sensitive"), SENSITIVE)
    assert finding.verdict == "undecided" and "in layers 2–6 only" in finding.why
    assert "leads at layer 1 and has lost its lead by layer 2" in finding.why


def test_represented_is_said_only_where_rank_or_probability_shows_it():
    result = run(world(), by="sensitive")
    verdicts, said = result.frames["verdicts"], {}
    for shown in (True, False):
        # without it, the verdict is none
        kind = verdicts["verdict"] if shown else "none"
        known = verdicts.assign(represented=shown, rank_share=0.01 if shown else 0.4, verdict=kind)
        said[shown] = told(replace(result, frames={**result.frames, "verdicts": known}), SENSITIVE)
    assert said[True].verdict == "found" and "is represented and then overridden" in said[True].claim.found
    assert numbers_of(said[True])["random answers that rank as high"].value == 0.01
    assert said[False].verdict == "undecided" and "ranks no higher than random answers" in said[False].why
    assert "is represented" not in sentence(said[False])


def test_several_kinds_of_prompts_are_each_set_against_the_rest():
    store = world()
    thirds = np.where(store.groups % 2 == 0, "even", "odd")
    kinds = np.where(store.labels("sensitive") == "sensitive", thirds, "benign")
    result = run(replace_labels(store, kinds), by="kind")
    contrasts = [f for f in result.findings if f.minus]
    assert {f.minus for f in contrasts} == {"rest"} and len(contrasts) == 3
    assert all(f.test is None or f.test.looks == 3 for f in contrasts)
    assert sum(f.lead for f in result.findings) == 1
    assert "prompts minus all others" in sentence(contrasts[0])


def test_findings_of_several_models_tell_contrasts_in_one_order():
    both = joined([run(world(name="base", sensitive=FLAT), by="sensitive"), run(world(), by="sensitive")])
    leads = [f for f in both.findings if f.lead]
    assert [(f.model, f.subset, f.minus) for f in leads] == [
        ("base", SENSITIVE, BENIGN),
        ("instruct", SENSITIVE, BENIGN),
    ]
    assert [f.verdict for f in leads] == ["not_found", "found"]


def test_layers_short_of_the_output_are_refused():
    store = world(sensitive=OVERRIDDEN)
    from layerprobe.analyses.lens.trajectories import read_trajectory

    with pytest.raises(LayerprobeError, match="up to layer 7"):
        read_trajectory(store.lens, "answer", "foil", n_layers=12)


def test_rows_whose_answer_is_their_foil_are_refused_and_can_be_left_out():
    store = world()
    ids = store.lens.candidate_ids.copy()
    ids[:4, 1] = ids[:4, 0]
    same = from_arrays(
        {"resid_post": np.zeros((8, store.n_rows, 2), np.float32)},
        labels={"sensitive": store.labels("sensitive")},
        groups=store.groups,
        lens=replace(store.lens, candidate_ids=ids),
    )
    with pytest.raises(
        LayerprobeError,
        match=r"4 of .* rows have the same tokens for 'answer' and 'foil'.*leave those rows out",
    ):
        suppression(same, target="answer", foil="foil", n_bootstrap=50, n_permutations=50)
    kept = same.select(np.arange(store.n_rows) >= 4)
    assert len(suppression(kept, target="answer", foil="foil", n_bootstrap=50, n_permutations=50).findings)
