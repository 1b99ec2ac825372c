"""The report: it holds what it must, from hostile input too, and asks nothing of the network."""

import json
import re
from html.parser import HTMLParser

import pytest
from small_study import HOSTILE, study_mapping

import layerprobe as lp
from layerprobe.analyses.result import catalogue, registry
from layerprobe.analyses.result.findings import Claim, Finding
from layerprobe.analyses.result.words import cell, fill, sentence
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.report.collect import questions, read_entries
from layerprobe.probe.report.notes import notes_for
from layerprobe.probe.report.overview import told_together
from layerprobe.probe.report.parts import slug
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


def test_the_page_stays_small(html):
    assert len(html.encode()) < 2e6


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


def test_every_section_and_its_figures_are_there(run, page):
    wanted = [
        fill(registry.find(kind).title, {"label": "kind"})
        for kind in ("suppression", "compare", "linear_probe", "separation")
    ]
    for words in ("Summary", *wanted, "Methods", "Limits"):
        assert words in page.text, words
    ids = [e[1]["id"] for e in page.elements if e[1].get("class") == "plot"]
    assert len(ids) == len(set(ids)) >= 4
    assert set(json.loads(page.scripts[0])) == set(ids)
    labelled = [e for e in page.elements if e[1].get("class") == "plot"]
    assert all(len(e[1]["aria-label"]) > 20 for e in labelled)


def test_no_part_of_a_section_failed(run):
    report = json.loads((run.out / "results.json").read_text())
    for part in report["sections"]:
        assert not [note for note in part["notes"] if "could not be made" in note], part["title"]
        assert part["sentences"] and part["tables"], part["title"]


def test_no_two_places_of_a_report_contradict_each_other(run, page):
    """Every sentence and cell is that of one finding, so a number is the same wherever it stands."""
    report = json.loads((run.out / "results.json").read_text())
    _, entries = read_entries(run.out)
    findings = [finding for question in questions(entries) for finding in question.findings]
    said = {sentence(finding) for finding in findings}
    for part in report["sections"]:
        assert {line["text"] for line in part["sentences"]} <= said
    leads = [finding for finding in findings if finding.lead]
    together = {
        line
        for question in questions(entries)
        for line in told_together([f for f in question.findings if f.lead])
    }
    assert {one["sentence"] for one in report["findings"]} == together
    cells = {cell(finding) for finding in leads} | {"–"}
    assert {text for row in report["glance"]["rows"] for text in row[1:]} <= cells
    assert len(report["records"]) == len(findings)
    # one model, question, quantity and place has one estimate and one verdict
    seen = {}
    for record in report["records"]:
        claim = {
            k: record.get(k)
            for k in (
                "section",
                "claim",
                "quantity",
                "model",
                "reference",
                "target",
                "subset",
                "minus",
                "method",
                "space",
                "site",
                "layer",
                "head",
            )
        }
        value = (record.get("estimate"), record["verdict"])
        assert seen.setdefault(repr(claim), value) == value


def test_verdicts_follow_from_the_tests_beside_them(run):
    for record in json.loads((run.out / "results.json").read_text())["records"]:
        if record["verdict"] == "found" and "test" in record:
            assert record["test"]["p"] <= 0.05, record


def test_the_page_opens_with_five_findings_at_most_and_folds_the_rest(run, html):
    found = json.loads((run.out / "results.json").read_text())["findings"]
    opening = [f for f in found if f["lead"]]
    assert 1 <= len(opening) <= 5 < len(found)
    assert len({f["section"] for f in opening}) >= 3
    head = html[html.index('id="summary"') : html.index("</section>")]
    before, _, folded = head.partition("<details>")
    assert before.count("<li>") == len(opening)
    assert folded.partition("</details>")[0].count("<li>") == len(found) - len(opening)


def test_nothing_found_in_several_models_is_said_together_after_what_was_found():
    apart = Claim("apart", "apart", "no evidence that they are apart")
    one = {"claim": apart, "quantity": "silhouette", "estimate": 0.1, "lead": True}
    findings = [
        Finding(verdict="found", model="tuned", **one),
        Finding(verdict="not_found", model="base", **one),
        Finding(verdict="not_found", model="null", **one),
    ]
    found, together = told_together(findings)
    assert together.startswith("base and null: no evidence that they are apart (base 0.100; null 0.100")
    assert found.startswith("tuned: ") and "no evidence" not in found


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


def test_slugs_are_safe_in_html():
    assert re.fullmatch(r"[a-z0-9-]+", slug(HOSTILE))
    assert slug("…") == "part"


def test_every_analysis_has_its_note_on_methods_and_no_note_speaks_of_another():
    covered = {
        kind for note in notes_for({one.kind for one in registry.all_analyses()}) for kind in note["covers"]
    }
    ours = {one.kind for one in catalogue.listed().values() if one.package == "layerprobe"}
    assert covered - {"groups"} == ours
