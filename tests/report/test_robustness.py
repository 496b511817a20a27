"""The durability grid as text and as a heat map: signs, stars, colours, and what is said of it."""

import re

from hf_unlearn.report.card import render_card
from hf_unlearn.report.heat_map import colour, durability, heat_map
from hf_unlearn.report.robustness import grid_rows, robustness_rows, sentences, signed
from hf_unlearn.report.screen import render_stress

KINDS = ("untouched", "kept_rows", "unrelated_rows", "few_forgotten_rows", "related_rows")


def figure(own, twins, apart=False, spread=0.01):
    ends = {"mean": twins, "lowest": twins - 0.01, "highest": twins + 0.01, "spread": spread}
    return {"original": 1.0, "unlearned": own, "twins": ends, "difference": own - twins, "apart": apart}


def block(**changes):
    plain = {key: figure(0.9, 0.9) for key in ("forget_accuracy", "forget_loss", "membership_auc", "unseen_accuracy")}
    cells = {weights: {kind: dict(plain) for kind in KINDS} for weights in ("as_saved", "int8", "nf4")}
    cells["as_saved"]["few_forgotten_rows"]["forget_accuracy"] = figure(0.95, 0.75, apart=True)
    cells["nf4"]["untouched"]["membership_auc"] = figure(0.4, 0.5, apart=True)
    line = {"original": [1.0, 1.0], "unlearned": [0.9, None], "twins": {"mean": [0.8, 0.8], "lowest": [0.7, 0.7],
                                                                       "highest": [0.9, 0.9]}}  # fmt: skip
    curve = {"rows": "few_forgotten_rows", "steps": [0, 20], "figures": {k: line for k in plain}}
    tuning = {"name": "ours", "steps": 20, "batch_size": 32, "learning_rate": 2.5e-4, "asked_learning_rate": 1e-3,
              "survivor": "original", "margin": 0.02, "before": 0.96, "after": 0.95, "survives": True}  # fmt: skip
    rows = dict.fromkeys((*KINDS[1:], "measured", "unseen"), 30)
    return {"protocol": tuning, "rows": rows, "quantized": {"int8": "a", "nf4": "b"}, "cells": cells, "curve": curve,
            "paraphrases": {}, "not_checked": ["A <script>."]} | changes  # fmt: skip


def test_the_grid_on_the_screen():
    text = render_stress(block())
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"relearning: 30 forgotten rows +\*95.0 \| 75.0 ±1.0", text)
    flat = " ".join(text.split())
    assert (
        "forget accuracy: 1 of 15 cells above them, 0 below; membership AUC: 0 of 15 cells above them, 1 below" in flat
    )
    assert "AdamW at 0.00025, down from 0.001" in flat and "goes from 96.0 to 95.0 % on validation rows" in flat
    assert [len(row) for row in grid_rows(block(), "forget_accuracy")] == [4] * 6
    assert grid_rows(block(), "test_accuracy") == [] and len(robustness_rows(block(), ("unseen_accuracy",))) == 16


def test_questions_in_other_words_are_told_of():
    asked = {"before": {"forget_accuracy": 0.5}, "after": {"forget_accuracy": 0.61}}
    found = {"original": None, "unlearned": asked, "twins": asked | {"after": {"forget_accuracy": 0.4}}}
    text = " ".join(sentences(block(paraphrases={"questions": found | {"beyond_twins": None}})))
    assert "forget accuracy goes of the unlearned model from 50.0 to 61.0 %, of twins from 50.0 to 40.0 %." in text
    assert "other words" not in " ".join(sentences(block()))


def test_without_twins_nothing_is_coloured_or_told_apart():
    found = block()
    for kinds in found["cells"].values():
        for figures in kinds.values():
            for key, value in figures.items():
                figures[key] = value | {"twins": None, "difference": None, "apart": None}
    for line in found["curve"]["figures"].values():
        line["twins"] = None
    assert "no cell can be told apart" in " ".join(sentences(found)) and "90.0 | –" in render_stress(found)
    assert "rgba" not in durability(found)


def test_colours_follow_what_is_remembered():
    """Full at 20 points and at 1 nat; a higher loss says that less is remembered."""
    orange, blue = "rgba(213, 94, 0, ", "rgba(0, 114, 178, "
    assert colour(0.2, 0.2, True) == f"{orange}0.60)" == colour(0.9, 0.2, True)
    assert colour(-0.1, 0.2, True) == f"{blue}0.30)" and colour(-0.5, 1.0, False) == f"{orange}0.30)"
    assert colour(0.0, 0.2, True) == colour(None, 0.2, True) == colour(0.0001, 0.2, True) == ""
    page = heat_map(block(), "forget_accuracy")
    assert page.count("rgba") == 1 and "<strong>+20.0*</strong> · 95.0" in page and "twins 75.0 [74.0, 76.0]" in page
    show = lambda value: f"{100 * value:.1f}"  # noqa: E731
    assert signed({"difference": -0.0001, "apart": False}, show) == "0.0"
    assert signed({"difference": -0.1, "apart": False}, show) == "−10.0"
    assert "<script>" not in durability(block()) and durability(None) == "" and "<svg" in durability(block())


def test_the_durability_grid_stands_on_the_card(make_evidence):
    """Beside the twins and their spread; figures and counts alone, and nothing that Markdown would take for markup."""
    evidence = make_evidence(4)
    assert "Does it come back?" not in render_card(evidence)
    evidence["stress"] = block()
    card = render_card(evidence)
    assert card.index("## Figures") < card.index("## Does it come back?") < card.index("## Limits")
    assert r"| relearning: 30 forgotten rows | 95.0\* (75.0 ± 1.0) | 90.0 (90.0 ± 1.0) | 90.0 (90.0 ± 1.0) |" in card
    assert r"| untouched | 90.0 (90.0 ± 1.0) | 90.0 (90.0 ± 1.0) | 40.0\* (50.0 ± 1.0) |" in card
    assert "| membership AUC (%) | as saved | 8 bits (int8) | 4 bits (NF4) |\n| --- | ---: | ---: | ---: |" in card
    assert "- Told apart from the twins (\\*), forget accuracy: 1 of 15 cells" in card
    assert "<script" not in card and "there is none here" not in card
    for kinds in evidence["stress"]["cells"].values():
        for figures in kinds.values():
            figures["forget_accuracy"] = figure(0.9, 0.9) | {"twins": None, "difference": None, "apart": None}
            del figures["membership_auc"]
    card = render_card(evidence)
    assert "(there is none here)" in card and "| untouched | 90.0 | 90.0 | 90.0 |" in card
    assert "| membership AUC (%) | as saved" not in card
