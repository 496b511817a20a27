import json

import pytest

from hf_unlearn.report import render_markdown, render_table


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
    assert "rms z of forget rows" not in table  # a row that is nothing but dashes
    assert "rms z of forget rows" in render_table(make_evidence(4))


def test_the_table_of_a_stored_run_is_the_same(make_evidence):
    evidence = make_evidence(4)
    assert render_table(json.loads(json.dumps(evidence))) == render_table(evidence)


def test_markdown_has_the_same_figures(make_evidence):
    evidence = make_evidence(4)
    lines = render_markdown(evidence).splitlines()
    assert {line.count("|") for line in lines} == {7}
    row = next(line for line in lines if line.startswith("| membership AUC"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == cells(render_table(evidence), "membership AUC (%)")
