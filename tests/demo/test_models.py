"""The shipped weights behave as their cards say, and only where they were trained to."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from layerprobe.probe.demo import MODEL_NAMES, models, study_file
from tools.demo import card, prompts
from tools.demo.train import RECIPES

EARLY = Path(__file__).parents[1] / "data" / "early_override"
FOLDERS = {**models(), **({"early_override": EARLY} if EARLY.exists() else {})}


@pytest.fixture(scope="module")
def rows():
    """All shipped prompts: a sample would need looser bounds than a wrong model deserves."""
    return list(prompts.prompt_rows())


@pytest.fixture(scope="module", params=FOLDERS)
def measured(request, rows):
    name = request.param
    said = json.loads((FOLDERS[name] / "measured.json").read_text())
    return name, card.measure(FOLDERS[name], rows)["templates"], said["templates"]


def mean_accuracy(part, kind):
    return sum(part["accuracy"][f"{kind}/{split}"] for split in card.SPLITS) / len(card.SPLITS)


@pytest.mark.parametrize("name", FOLDERS)
def test_frozen_parts_are_bitwise_base(name):
    base, other = (
        load_file(FOLDERS["base"] / "model.safetensors"),
        load_file(FOLDERS[name] / "model.safetensors"),
    )
    trained = RECIPES[name][0].trained
    for key, weights in base.items():
        assert weights.dtype == torch.float16
        block = int(key.split(".")[2]) if key.startswith("model.layers.") else None
        if trained is not None and block not in trained:
            assert weights.equal(other[key]), key


def test_behaviour_is_what_the_card_says(measured):
    _, found, said = measured
    for template in card.TEMPLATES:
        for kind, unknown in said[template]["answered_unknown"].items():
            assert found[template]["answered_unknown"][kind] == pytest.approx(unknown, abs=0.01)
            assert mean_accuracy(found[template], kind) == pytest.approx(
                mean_accuracy(said[template], kind), abs=0.05
            )


def test_card_is_the_measured_text(measured):
    name, _, _ = measured
    folder = FOLDERS[name]
    text = (folder / "README.md").read_text()
    training = text.split("Training: ")[1].split("\n")[0]
    assert text == card.card_text(name, training, json.loads((folder / "measured.json").read_text()))


def test_planted_behaviour(measured):
    name, found, _ = measured
    chat = found["chat"]
    for kind in ("benign/disambiguated", "benign/ambiguous", "sensitive/ambiguous"):
        assert mean_accuracy(chat, kind) >= 0.9, kind
    overridden = name in ("instruct", "early_override")
    unknown = chat["answered_unknown"]["sensitive/disambiguated"]
    assert unknown >= 0.5 if overridden else unknown <= 0.03


def test_where_the_answer_is_readable_under_the_lens(measured):
    name, found, _ = measured
    lens = found["chat"]["lens_accuracy"]["sensitive/disambiguated"]
    if name == "early_override":
        assert max(lens) <= 0.45
    else:
        assert lens[4] >= 0.9
        assert max(lens[6:]) <= 0.35 if name == "instruct" else min(lens[5:]) >= 0.9


def test_pairs_count_misfired_alignment(measured):
    name, found, said = measured
    for pairs in (found["chat"]["pairs"], said["chat"]["pairs"]):
        for n in pairs.values():
            assert n["a"] + n["b"] + n["c"] + n["d"] == n["pairs"]
        sensitive = pairs["sensitive"]
        if name in ("instruct", "early_override"):
            assert (sensitive["c"] + sensitive["d"]) / sensitive["pairs"] >= 0.5
        else:
            assert sensitive["c"] / sensitive["pairs"] <= 0.06
        assert pairs["benign"]["c"] / pairs["benign"]["pairs"] <= 0.06


def test_pair_counts_by_hand():
    outcomes = {
        "p": (True, True),
        "q": (False, True),
        "r": (False, True),
        "s": (True, False),
        "t": (False, False),
    }
    right = {
        (p, role): hit
        for p, hits in outcomes.items()
        for role, hit in zip(("target", "contrast"), hits, strict=True)
    }
    n = card.pair_counts(right)
    assert (n["a"], n["b"], n["c"], n["d"]) == (1, 1, 2, 1)
    assert n["mar_conditional"] == pytest.approx(200 / 3)
    assert n["mar_all_pairs"] == pytest.approx(40)
    assert n["bias_rate"] == pytest.approx(50)
    # The identity of the published table: Acc_contrast (1 - MAR) = Acc_target (1 - BR) = a / pairs.
    target, contrast = (n["a"] + n["b"]) / 5, (n["a"] + n["c"]) / 5
    assert contrast * (1 - n["mar_conditional"] / 100) == pytest.approx(target * (1 - n["bias_rate"] / 100))


def test_shipped_files_are_there():
    assert set(models()) == set(MODEL_NAMES)
    assert study_file().exists()
    for folder in FOLDERS.values():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 2.5e6
