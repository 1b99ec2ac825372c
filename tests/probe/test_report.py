"""The report: it holds what it must, from hostile input too, and asks nothing of the network."""

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest
from small_study import HOSTILE, study_mapping

import layerprobe as lp
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.report.collect import Entry, number, with_interval
from layerprobe.probe.report.overview import headline
from layerprobe.probe.report.parts import slug
from layerprobe.probe.report.summarise import lead, with_prompts
from layerprobe.probe.report.write import write_report


class Page(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.words, self.open, self.scripts = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br", "input", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return lp.run_study(study_mapping(folder, hostile=True), out=folder / "out", progress=False)


@pytest.fixture(scope="module")
def html(run):
    return run.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_hostile_prompts_and_titles_stay_text(html, page):
    assert HOSTILE not in html
    assert "onerror=alert(1)>" not in html
    assert f"A small study {HOSTILE}" in page.text
    assert not [e for e in page.elements if e[0] == "img" or "onerror" in e[1]]
    assert len(page.scripts) == 3
    json.loads(page.scripts[0])


def test_nothing_is_fetched(page):
    fetching = [
        e for e in page.elements if {"src", "srcset", "action"} & set(e[1]) or e[0] in ("link", "iframe")
    ]
    assert not fetching
    assert all(e[1]["href"].startswith("#") for e in page.elements if e[0] == "a")
    policy = next(
        e[1]["content"] for e in page.elements if e[1].get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy


def test_it_says_what_was_run_on_what(run, page):
    identity = run.stores["base"].provenance["model"]["weights_sha256"]
    for fact in (
        "base",
        "tuned",
        identity[:16],
        "64",
        "16 (column group)",
        "resid_post",
        "last",
        "float32",
        "torch",
    ):
        assert fact in page.text, fact
    assert "layerprobe run" in page.text


def test_every_section_and_its_figures_are_there(html, page):
    for words in (
        "Summary", "Is the answer represented, and then suppressed?", "What differs from base?",
        "Can a linear probe read “kind”?", "Do the classes of “kind” form clusters?", "Methods", "Limits",
    ):  # fmt: skip
        assert words in page.text, words
    ids = [e[1]["id"] for e in page.elements if e[1].get("class") == "plot"]
    assert len(ids) == len(set(ids)) >= 5
    assert set(json.loads(page.scripts[0])) == set(ids)
    labelled = [e for e in page.elements if e[1].get("class") == "plot"]
    assert all(len(e[1]["aria-label"]) > 20 for e in labelled)
    assert html.count("window.layerprobeThemes =") == 1


def test_the_probe_figure_shows_interval_chance_null_and_baselines(page):
    figures = json.loads(page.scripts[0])
    probe = next(v for k, v in figures.items() if "probe" in k)
    names = {trace.get("name") for trace in probe["data"]}
    assert {"base", "tuned", "permutation null"} <= names
    words = " ".join(a["text"] for a in probe["layout"]["annotations"])
    assert "chance" in words
    assert "bag of words" in words


def test_every_sentence_of_the_summary_carries_a_number(run):
    report = json.loads((run.out / "results.json").read_text())
    assert report["findings"]
    for finding in report["findings"]:
        assert re.search(r"\d", finding["sentence"]), finding


def test_the_page_opens_with_five_findings_at_most_and_folds_the_rest(run, html):
    found = json.loads((run.out / "results.json").read_text())["findings"]
    opening = [f for f in found if f["lead"]]
    assert 1 <= len(opening) <= 5 < len(found)
    assert len({f["section"] for f in opening}) >= 3
    head = html[html.index('id="summary"') : html.index("</section>")]
    before, _, folded = head.partition("<details>")
    assert before.count("<li>") == len(opening)
    assert folded.partition("</details>")[0].count("<li>") == len(found) - len(opening)


def test_conclusions_and_what_sets_them_against_each_other_always_lead():
    found = [{"section": "lens"}] * 6 + [{"section": s} for s in ("compare", "a", "a", "b", "c")]
    assert lead(found, 6, {"compare"}) == {0, 1, 2, 5, 7}
    assert lead(found[6:], 0, {"compare"}) == {1, 3, 4, 2, 0}
    assert lead([], 0, set()) == set()


def test_json_holds_the_report_without_drawing_instructions(run):
    report = json.loads((run.out / "results.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert {"title", "facts", "findings", "glance", "sections", "methods", "limits"} <= set(report)
    assert "vega" not in json.dumps(report["sections"])


def test_the_same_results_give_the_same_page(run, html):
    assert write_report(run.out).read_text(encoding="utf-8") == html


def test_ids_are_deterministic_and_unique(page):
    ids = [e[1]["id"] for e in page.elements if "id" in e[1]]
    assert len(ids) == len(set(ids))
    targets = {e[1]["href"][1:] for e in page.elements if e[0] == "a"}
    assert targets <= set(ids)


def test_without_results_there_is_no_report(tmp_path):
    with pytest.raises(LayerprobeError, match="no results in"):
        write_report(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_number_without_an_interval_says_why():
    assert with_interval({"estimate": 0.5, "lo": float("nan"), "note": "two groups"}) == (
        "0.500 (no interval: two groups)"
    )
    assert with_interval({"estimate": float("nan"), "note": "one class"}) == "– (one class)"
    assert number(float("nan")) == "–"


def test_slugs_are_safe_in_html():
    assert re.fullmatch(r"[a-z0-9-]+", slug(HOSTILE))
    assert slug("…") == "part"


def test_sentences_about_different_prompts_say_which():
    def entry(kind, **options):
        return Entry(kind, SimpleNamespace(kind=kind), ("m",), options)

    found = [
        {"section": "s", "sentence": "It ends at -4.27."},
        {"section": "b", "sentence": "Right: 75 %."},
    ]
    kinds = {"s": "suppression", "b": "behaviour"}
    where = {"where": {"condition": "clear"}}
    same = [entry("suppression", **where), entry("behaviour", **where)]
    assert with_prompts(found, same, kinds) == found
    told = with_prompts(found, [entry("suppression", **where), entry("behaviour")], kinds)
    assert told[0]["sentence"] == "It ends at -4.27 (prompts with condition = clear)."
    assert told[1]["sentence"] == "Right: 75 % (all prompts)."


def test_a_lead_lost_in_part_is_not_called_no_evidence():
    row = {"verdict": "none", "index": 3.0, "index_lo": 2.5, "index_hi": 3.5, "peak": 10.0, "final": 7.0}
    row |= {"peak_layer": 4, "handoff_rate": 0.0, "model": "tuned", "subset": "kind=benign"}
    flat = {**row, "index": 0.1, "index_lo": -0.1, "index_hi": 0.2, "final": 9.9, "model": "plain"}
    result = SimpleNamespace(kind="suppression", frames={"verdicts": pd.DataFrame([row, flat])})
    told = headline([Entry("s", result, ("tuned", "plain"), {})])
    assert "tuned on benign prompts: below the threshold for a verdict (30% of the lead is lost" in told[1]
    assert told[0].startswith("No evidence of suppression") and "tuned" not in told[0]
