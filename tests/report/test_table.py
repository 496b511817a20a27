import json

import pytest

from hf_unlearn.report import render_markdown, render_table, verdict
from hf_unlearn.report.verdict import headline, original_gap


def cells(table, label):
    line = next(line for line in table.splitlines() if line.startswith(label))
    return [cell.strip() for cell in line.removeprefix(label).split("   ") if cell.strip()]


@pytest.mark.parametrize("twins", [0, 1, 2, 4])
def test_every_line_fits_the_screen(make_evidence, twins):
    table = render_table(make_evidence(twins, notes=["A note that is long. " * 12]))
    assert max(len(line) for line in table.splitlines()) <= 100
    assert "A note that is long." in table
    assert "None" not in table and "nan" not in table


def test_figures_stand_in_their_columns(make_evidence):
    evidence = make_evidence(4)
    table, models = render_table(evidence), evidence["models"]
    accuracies = [f"{100 * models[name]['accuracy']['forget']:.2f}" for name in ("original", "unlearned", "retrained")]
    ends = [f"{evidence[block]['forget_accuracy']:.2f}" for block in ("gap", "floor")]
    assert cells(table, "forget accuracy (%)") == accuracies + ends
    membership = models["unlearned"]["membership"]
    expected = f"{100 * membership['loss_auc']:.1f} ± {100 * membership['loss_auc_se']:.1f}"
    assert cells(table, "membership AUC (%)")[1] == expected
    assert cells(table, "rms z of forget rows")[2] == f"{models['retrained']['rows']['rms_z']:.2f}"
    assert cells(table, "seconds")[:3] == ["21.0", "4.6 (24 %)", "19.5"]
    assert cells(table, "examples")[:3] == ["–", "9,321 (22 %)", "43,200"]
    assert cells(table, "peak memory (MB)")[1] == "512"
    assert "retrained ×4" in table


def test_without_twins_their_columns_are_dashes(make_evidence):
    table = render_table(make_evidence(0))
    for label in ("forget accuracy (%)", "test loss (nats)", "membership AUC (%)", "seconds"):
        assert cells(table, label)[2:] == ["–", "–", "–"]


def test_the_table_of_a_stored_run_is_the_same(make_evidence):
    evidence = make_evidence(4)
    assert render_table(json.loads(json.dumps(evidence))) == render_table(evidence)


def test_markdown_has_the_same_figures(make_evidence):
    evidence = make_evidence(4)
    lines = render_markdown(evidence).splitlines()
    assert {line.count("|") for line in lines} == {7}
    row = next(line for line in lines if line.startswith("| membership AUC"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == cells(render_table(evidence), "membership AUC (%)")


def test_verdict_says_when_there_is_no_yardstick(make_evidence):
    assert (
        verdict(make_evidence(0)) == [line for line in verdict(make_evidence(0)) if "No retrained twin" in line] != []
    )
    (one,) = verdict(make_evidence(1))
    assert "With one twin there is no floor" in one
    no_rows = make_evidence(2)
    no_rows["models"]["unlearned"]["rows"]["rms_z"] = None
    assert "averages alone" in verdict(no_rows)[-1] and headline(no_rows).startswith("In averages alone")


def test_two_twins_judge_rows_by_what_a_third_would_show(make_evidence):
    evidence = make_evidence(2)
    assert "about as far as another twin would, roughly, with 2 twins" in verdict(evidence)[-1]
    evidence["models"]["unlearned"]["rows"]["level_corrected"]["rms_z"] = 1.3
    assert "rows still stand out" in verdict(evidence)[-1]
    assert headline(evidence) == "Still to be told from 2 retrained twins: single rows."


def test_forgetting_that_shows_counts_against_a_method(make_evidence):
    evidence = make_evidence(4, unlearned=-3.0, plots=True)
    hard = [line for line in verdict(evidence) if line.startswith("Forgotten so hard that it shows")]
    ks = evidence["distributions"]["ks"]["unlearned"]
    assert f"KS distance {ks['distance']:.2f}, from twin to twin {ks['floor']:.2f}" in hard[0]
    assert "forget losses too high" in headline(evidence) and "over-forgotten" in headline(evidence)
    for twins, surer in ((4, 0.0), (4, 3.0), (1, -3.0)):
        untouched = make_evidence(twins, unlearned=surer, plots=True)
        assert not any("so hard" in line for line in verdict(untouched))


def test_the_headline_claims_no_more_than_the_verdict(make_evidence):
    assert headline(make_evidence(0)).startswith("Not judged") and headline(make_evidence(1)).startswith("Not judged")
    good = "about as far from {} retrained twins as they are from each other"
    assert headline(make_evidence(4)) == f"In averages and row by row, {good.format(4)}."
    three = make_evidence(4)
    three["models"]["retrained"]["twins"] = 3
    assert headline(three) == f"In averages and row by row, {good.format(3)} (roughly, with fewer than 4 twins)."
    assert "can hardly tell methods apart" in headline(make_evidence(4, original=0.0))
    assert "forget accuracy, " in headline(make_evidence(4, unlearned=1.5))
    few = make_evidence(4)
    few["data"]["splits"]["forget"] = 20
    assert "on few forget rows" in headline(few) and "moves an accuracy by 5.0 points" in " ".join(verdict(few))
    unknown = make_evidence(4)
    unknown["gap"]["membership"] = None
    assert "without membership AUC" in headline(unknown)
    nothing = make_evidence(4)
    nothing["models"]["unlearned"] = None
    assert headline(nothing).startswith("Not judged") and verdict(nothing) == []


def test_verdict_of_a_good_and_of_a_bad_result(make_evidence):
    averages, rows = verdict(make_evidence(4))
    assert "about as far as from twin to twin" in averages and "about as far as" in rows
    averages, rows = verdict(make_evidence(4, unlearned=1.5, shift=-2))
    assert "forget accuracy is 5.0 points from the twins (floor 1.1)" in averages
    assert "test accuracy is 26.0 points below the twins" in averages and "retain" not in averages
    assert "rows still stand out" in rows


@pytest.mark.parametrize("figure, value", [("rms_z", 1.6), ("remembered", 0.2), ("over_forgotten", 0.2)])
@pytest.mark.parametrize("corrected", [False, True])
def test_each_row_figure_counts(make_evidence, figure, value, corrected):
    evidence = make_evidence(4)
    rows = evidence["models"]["unlearned"]["rows"]
    (rows["level_corrected"] if corrected else rows)[figure] = value
    assert "rows still stand out" in verdict(evidence)[-1]


def test_verdict_flags_over_forgotten_rows(make_evidence):
    assert "rows still stand out" in verdict(make_evidence(4, unlearned=-1.5))[-1]


def test_verdict_says_when_doing_nothing_is_as_good(make_evidence):
    evidence = make_evidence(4, original=0.0)
    gap = original_gap(evidence["models"])
    assert gap["average"] == pytest.approx(sum(v for k, v in gap.items() if k != "average") / 4)
    assert any("can hardly tell methods apart" in line for line in verdict(evidence))
    assert not any("can hardly tell" in line for line in verdict(make_evidence(4)))


def test_verdict_names_what_was_not_measured(make_evidence):
    evidence = make_evidence(4)
    evidence["gap"]["membership"] = None
    assert "Not measured: membership AUC." in verdict(evidence)[0]
