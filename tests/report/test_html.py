import json
import re
from html.parser import HTMLParser

import pytest

from hf_unlearn.report import plots
from hf_unlearn.report.html import render_html
from hf_unlearn.report.training import POINTS, training_block
from hf_unlearn.report.verdict import headline

HISTORY = [
    {"step": 5, "loss": 2.0, "forget_loss": 1.0, "retain_loss": 1.0, "learning_rate": 1e-3, "grad_norm": 3.0},
    {"step": 10, "loss": 1.0, "forget_loss": 2.0, "retain_loss": 0.1, "learning_rate": 1e-4},
    {"step": 10, "eval_forget_accuracy": 0.5, "eval_runtime": 3.0},
    {"step": 10, "train_loss": 1.5, "train_runtime": 4.0},
]


@pytest.fixture
def full(make_evidence):
    def make(twins=4, **options):
        return make_evidence(twins, plots=True, **options) | {"training": training_block(HISTORY)}

    return make


class Page(HTMLParser):
    """What a browser would load, what it would show, and whether tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.labels, self.shown, self.tags = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.links += [(tag, v) for k, v in attributes.items() if k in ("src", "href", "xlink:href", "srcset", "data")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.labels += [attributes["aria-label"]] if tag == "svg" else []
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.shown.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.shown).split())


def headings(text):
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_the_page_is_whole_and_needs_no_network(full):
    text = render_html(full())
    page = Page(text)
    outside = [(tag, link) for tag, link in page.links if not link.startswith("#")]
    assert outside == [("a", "https://arxiv.org/abs/2403.14339")]
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}
    assert len(page.ids) == len(set(page.ids)) > 10
    assert {link[1:] for _, link in page.links if link.startswith("#")} <= set(page.ids)
    assert {found for found in re.findall(r"url\(#([^)]*)\)", text)} <= set(page.ids)
    assert ("html", {"lang": "en"}) in page.tags
    assert len(page.labels) == 3 + 1 + 1 + 2 + 2 and all(len(label) > 15 for label in page.labels)
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_all_that_comes_from_the_evidence_is_escaped(full):
    evil = '<script>alert("1")</script>'
    evidence = full(notes=[evil])
    evidence["method"]["name"] = evidence["task"] = evidence["environment"]["device"] = evil
    evidence["method"]["paper"] = dict.fromkeys(("title", "authors", "year", "id"), evil)
    evidence["method"]["hyperparameters"] = {evil: evil}
    evidence["environment"]["packages"] = {evil: evil}
    evidence["data"]["request"] = {"kind": evil, "classes": [evil]}
    evidence["training"]["curves"] = {"loss": {"step": [1, 2], "value": [1.0, 2.0]}}
    evidence["attacks"] = {"figures": {evil: {"unlearned": {"value": 0.5, "interval": None}}}, "not_run": [evil]}
    evidence["lira"] = {evil: {"value": 0.5, "interval": [0.4, 0.6], "null": 0.5}, "note": evil}
    text = render_html(evidence)
    assert "<script" not in text and text.count("&lt;script&gt;") > 10
    Page(text)


def test_every_section_is_there_or_left_out(full, make_evidence):
    text = render_html(full(4))
    assert headings(text) == [
        "Figures", "Losses", "Membership attacks", "Row by row", "Over the training", "Cost", "Not checked",
        "How it was made",
    ]  # fmt: skip
    bare = make_evidence(0)
    bare["cost"] = dict.fromkeys(bare["cost"])
    assert headings(render_html(bare)) == ["Figures", "Not checked", "How it was made"]
    assert "no twin was trained or given" in render_html(bare)
    old = make_evidence(2)
    for name in ("distributions", "training", "attacks"):
        old.pop(name, None)
    for model in old["models"].values():
        model.pop("intervals")
    Page(render_html(old))


@pytest.mark.parametrize("twins", [0, 1, 2, 3, 4])
def test_a_page_for_any_number_of_twins(full, twins):
    evidence = full(twins)
    page = Page(render_html(evidence))
    assert headline(evidence) in page.text
    assert ("Row by row" in headings(render_html(evidence))) == (twins >= 2)
    assert "nan" not in page.text.lower().split() and "None" not in page.text.split()


def test_the_same_page_each_time_also_from_the_stored_file(full):
    evidence = full()
    assert render_html(evidence) == render_html(evidence) == render_html(json.loads(json.dumps(evidence)))


def test_the_callers_matplotlib_is_left_alone(full):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 33.0}):
        before = dict(matplotlib.rcParams)
        styled = render_html(full())
        assert dict(matplotlib.rcParams) == before
    assert styled == render_html(full())


def test_plots_take_their_colours_from_the_page(full):
    text = render_html(full())
    style, body = text.split("</style>", 1)
    assert not re.findall(r"(?:fill|stroke): ?#(?!000000)[0-9a-f]{6}", body)
    for name in ("original", "unlearned", "twins", "line", "muted"):
        assert f"var(--{name})" in body and style.count(f"--{name}:") == 3
    assert "currentColor" in body


def test_no_row_can_be_read_off(full):
    """Neither figures of single rows nor the values of the request are in the page or the evidence."""
    evidence = full()
    evidence["data"]["request"] = {"kind": "where", "column": "patient", "count": 1}
    evidence["data"]["source"] = "/home/somebody/patients"
    text = render_html(evidence)
    assert "patient" not in text and "somebody" not in text
    counts = evidence["distributions"]["loss"]["counts"]["unlearned"]["forget"]
    assert all(isinstance(count, int) for count in counts) and sum(counts) == 120


def test_training_curves_are_the_logs_thinned():
    block = training_block(HISTORY)
    assert block["curves"]["loss"] == {"step": [5, 10], "value": [2.0, 1.0]}
    assert set(block["curves"]) == {"loss", "forget_loss", "retain_loss", "learning_rate", "eval_forget_accuracy"}
    long = training_block([{"step": i, "loss": float(i)} for i in range(1000)])["curves"]["loss"]
    assert len(long["step"]) == POINTS and (long["step"][0], long["step"][-1]) == (0, 999)
    assert long["value"] == [float(step) for step in long["step"]]
    assert training_block([]) == {"curves": {}}


def test_no_roc_curve_over_a_handful_of_rows(make_evidence):
    evidence = make_evidence(2, plots=True)
    assert "ROC of the loss attack" in render_html(evidence)
    evidence["distributions"]["roc"]["members"] = 15
    page = render_html(evidence)
    assert "ROC of the loss attack" not in page and "15 forget rows" in page


def test_unseen_rows_of_a_removed_class_have_their_own_name_and_mean(make_evidence):
    evidence = make_evidence(2, plots=True)
    for model in evidence["models"].values():
        model["loss"]["nonmembers"] = 7.25
    page = render_html(evidence)
    assert "Unseen rows of the removed classes" in page and "Mean loss of these: original 7.25" in page


def test_a_logarithmic_axis_has_two_numbers_at_least():
    for low, high in ((0.9, 130), (12, 85), (31, 48)):
        ticks = plots._Decades().tick_values(low, high)
        assert sum(low <= tick <= high for tick in ticks) >= 2
