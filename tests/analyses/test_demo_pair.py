"""The shipped models, whose answer is known: an override of sensitive prompts after block 4 of instruct."""

from pathlib import Path

import numpy as np
import pytest

from layerprobe.analyses.behaviour.on_pairs import behaviour
from layerprobe.analyses.causes.answer_task import answer_task
from layerprobe.analyses.causes.choice import Patcher
from layerprobe.analyses.causes.source import model_source
from layerprobe.analyses.lens.suppression import suppression
from layerprobe.cache.capture.run import capture
from layerprobe.cache.prompts.table import read_prompts
from layerprobe.hooks.weights.load import load_model
from layerprobe.probe import demo
from tools.demo.cause import check

PLANTED = 5
EARLY = Path(__file__).parents[1] / "data" / "early_override"
LABELS = ["sensitive", "condition", "answer", "foil", "role", "lopsided"]
OPTIONS = {"target": "answer", "foil": "foil", "by": "sensitive", "n_bootstrap": 300, "n_permutations": 300}


def folders():
    return {**demo.models(), "early": EARLY}


@pytest.fixture(scope="module")
def prompts():
    table = read_prompts(
        demo.prompts_file(), text="prompt", labels=LABELS, group="group", pair="pair", id="id"
    )
    return table[np.flatnonzero(np.asarray(table.labels["condition"]) == "disambiguated")]


@pytest.fixture(scope="module")
def stores(prompts):
    found = {}
    groups = np.unique(np.asarray(prompts.groups).astype(str), return_inverse=True)[1]
    third = np.flatnonzero(groups % 3 == 0)
    for name, folder in folders().items():
        if not (folder / "model.safetensors").is_file():
            pytest.skip(f"no model at {folder}: python -m tools.demo.train makes it")
        model = load_model(folder, dtype="float32", check=False, name=name)
        part = prompts if name == "instruct" else prompts[third]  # only the card's counts need them all
        found[name] = capture(
            model, part, sites=["lens"], lens_tokens=["answer", "foil"], chat_template=True, progress=False
        )
    return found


def verdicts(store):
    return suppression(store, **OPTIONS).frames["verdicts"].set_index("subset")


def test_the_override_is_found_late_in_instruct_on_sensitive_prompts_only(stores):
    found = verdicts(stores["instruct"])
    sensitive = found.loc["sensitive=sensitive"]
    assert sensitive["verdict"] in ("override", "weakened") and sensitive["late"]
    assert abs(sensitive["onset_layer"] - PLANTED) <= 1
    assert sensitive["index_lo"] > 0
    assert found.loc["sensitive=benign", "verdict"] == "none"


@pytest.mark.parametrize("name", ["base", "instruct_null"])
def test_nothing_is_found_where_nothing_was_planted(stores, name):
    result = suppression(stores[name], **OPTIONS)
    assert set(result.frames["verdicts"]["verdict"]) == {"none"}
    assert [f.verdict for f in result.findings if f.minus is None] == ["not_found", "not_found"]


def test_an_early_override_is_not_called_late(stores):
    assert not verdicts(stores["early"])["late"].any()


def test_the_misfired_alignment_rate_is_the_model_cards(stores):
    import json

    measured = json.loads((folders()["instruct"] / "measured.json").read_text())
    result = behaviour(stores["instruct"], by=["sensitive"], right_when="top", n_bootstrap=50)
    counts = result.table.pivot_table(index="subset", columns="metric", values="estimate", sort=False)
    for kind in ("sensitive", "benign"):
        card, row = measured["templates"]["chat"]["pairs"][kind], counts.loc[f"sensitive={kind}"]
        assert [row[cell] for cell in "abcd"] == [card[cell] for cell in "abcd"]
        assert 100 * row["mar_conditional"] == pytest.approx(card["mar_conditional"])


def test_restoring_three_of_the_six_parts_that_differ_brings_the_answer_back():
    """Chosen on one draw of prompts and confirmed on another. The other three parts hold a share of the
    override too (0.16), so only the random directions are held to a tenth.
    """
    result = check("layers", enough=0.8, lookahead=3, n_random=5, n_bootstrap=200, n_permutations=200)
    assert result.provenance["differing"] == [
        f"{kind} {layer}" for layer in (5, 6, 7) for kind in ("attn", "mlp")
    ]
    table = result.table.drop_duplicates("metric").set_index("metric")
    assert len(result.provenance["chosen"]) == 3
    assert table.loc["recovery_of_set", "lo"] >= 0.8
    assert table.loc["recovery_of_random_directions", "hi"] <= 0.1
    assert table.loc["recovery_of_random_sets", "hi"] <= 0.25
    assert set(table["split"].dropna()) == {"prompts that did not choose", "control prompts"}


def test_restoring_every_part_is_the_other_model(stores):
    base, instruct = (
        load_model(folders()[name], dtype="float32", check=False, name=name) for name in ("base", "instruct")
    )
    task = answer_task(stores["instruct"], instruct, limit=8)
    patcher = Patcher(instruct, task, model_source(task, instruct, base), 8, "all", "layers")
    np.testing.assert_allclose(patcher.sets([patcher.names])[:, 0], patcher.ends()[1], atol=1e-4)
