"""What language models say in the places of forgotten tokens: a line of every table, and a note where it is odd."""

import pytest

from hf_unlearn.report import render_markdown, render_table, validate, verdict
from hf_unlearn.report.card import render_card
from hf_unlearn.report.compare import compare
from hf_unlearn.report.contest import build_contest
from hf_unlearn.report.contest_table import contest_text
from hf_unlearn.report.html import render_cell, render_html

LINE = "said instead (KL, nats/token)"
ODD = (
    "The words in place of the forgotten answers are odd: {} nats per token from the twins' (KL), where the original's"
)


@pytest.fixture
def evidence(make_evidence):
    made = make_evidence(3)
    made["said_instead"] = {
        "tokens": 256, "of": 1203, "original": 2.824, "unlearned": 1.118, "twins": 0.19, "each": [0.17, 0.19, 0.21],
        "standard_errors": {"original": 0.2, "unlearned": 0.0812, "twins": 0.02, "change": 0.15},
    }  # fmt: skip
    return made


def test_the_figure_stands_wherever_figures_stand(evidence):
    assert validate(evidence) == []
    row = f"| {LINE} | 2.824 | 1.118 | 0.190 | – | – |"
    card = render_card(evidence)
    assert row in render_markdown(evidence) and row in card
    table = render_table(evidence)
    assert table.split(LINE)[1].split()[:5] == ["2.824", "1.118", "0.190", "–", "–"]
    assert max(len(line) for line in table.splitlines()) <= 100
    told = "What is said instead was measured in 256 of 1,203 forgotten tokens (standard error 0.081 nats)."
    legend = "Row figures, KS distance and what is said instead are against the twins"
    for text in (table, card, render_html(evidence), render_cell(evidence)):
        assert told in " ".join(text.split()) and legend in " ".join(text.split()) and LINE in text
        assert ODD[:20] not in text


def test_without_it_nothing_is_said_of_it(make_evidence):
    texts = [render(make_evidence(3)) for render in (render_table, render_card, render_html)]
    assert not any("said instead" in text for text in texts)
    assert all("Row figures and KS distance are" in " ".join(text.split()) for text in texts)


def test_of_all_tokens_no_sample_is_spoken_of(evidence):
    evidence["said_instead"]["of"] = 256
    assert "was measured in" not in render_table(evidence)


@pytest.mark.parametrize(
    ("unlearned", "change", "original", "odd"),
    [
        (2.91, 0.02, 2.824, True),
        (2.91, 0.05, 2.824, False),  # 0.086 is less than two standard errors
        (2.91, None, 2.824, True),  # of a single token nothing is known
        (2.80, 0.001, 2.824, False),
        (0.41, 0.001, 0.15, False),  # not twice as far as one of the twins
        (0.43, 0.001, 0.15, True),
        (None, None, 2.824, False),
        (2.91, None, None, False),
    ],
)
def test_odd_words_are_told(evidence, unlearned, change, original, odd):
    block = evidence["said_instead"]
    block |= {"unlearned": unlearned, "original": original}
    block["standard_errors"]["change"] = change
    note = [text for text in verdict(evidence) if text.startswith("The words in place")]
    assert bool(note) == odd
    if odd:
        assert note == [f"{ODD.format(f'{unlearned:.2f}')} were {original:.2f}."]
        assert note[0] in " ".join(render_table(evidence).split()) and "words in place" in render_html(evidence)


def test_one_twin_has_nothing_to_be_held_against(evidence):
    evidence["said_instead"] |= {"twins": None, "each": [], "unlearned": 2.9}
    evidence["said_instead"]["standard_errors"] |= {"twins": None, "change": 0.01}
    assert validate(evidence) == [] and f"{LINE} | 2.824 | 2.900 | – |" in render_markdown(evidence)
    assert not any(text.startswith("The words in place") for text in verdict(evidence))


def test_runs_and_contestants_are_compared_by_it(evidence):
    other = evidence | {"said_instead": evidence["said_instead"] | {"unlearned": 0.18}}
    found = compare([evidence, other])
    (place,) = [i for i, row in enumerate(found.rows) if row[0] == LINE]
    assert found.rows[place][1:] == ("2.824", "1.118", "0.180", "0.190")
    assert found.best[place - 1] == [False, True]
    names = ("do nothing", "a", "another twin")
    runs = {name: [] for name in names}
    for name in names:
        for seed in range(2):
            run = (other if name == "another twin" else evidence) | {"method": {**evidence["method"], "name": name}}
            run["contest"] = {"entry": name, "seed": seed, "tried": [], "failed": None}
            runs[name].append(run)
    contest = build_contest(runs, retrain=3, tune=0, passed_over={})
    entries = {entry["name"]: entry["figures"]["said_instead"]["mean"] for entry in contest["entries"]}
    assert entries == pytest.approx({"do nothing": 1.118, "a": 1.118, "another twin": 0.18})
    assert contest["floor"]["said_instead"]["mean"] == pytest.approx(0.19)
    text = contest_text(contest)
    header = text.splitlines()[0].split()
    assert header[header.index("KL") - 1] == "z" and "MB" not in header
    assert max(len(line) for line in text.splitlines()) <= 100
