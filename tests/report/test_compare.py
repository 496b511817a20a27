import copy
import json

import pytest

from hf_unlearn.commands.report import write_report
from hf_unlearn.errors import UserError
from hf_unlearn.report.compare import compare, comparison_text
from hf_unlearn.report.compare_page import compare_runs, run_names


@pytest.fixture
def runs(make_evidence):
    """Three runs with figures set by hand."""
    base = make_evidence(4)
    found = []
    for name, gap, accuracy, seconds in (("a", 1.0, 0.9, 5.0), ("b", 2.0, 0.95, 6.0), ("c", 4.0, 0.85, 10.0)):
        run = copy.deepcopy(base)
        run["method"]["name"] = name
        run["gap"] |= {"forget_accuracy": gap, "membership": gap, "average": gap}
        run["floor"] |= {"forget_accuracy": 2.5, "membership": 0.5, "average": 3.0}
        run["models"]["unlearned"]["accuracy"]["test"] = accuracy
        run["cost"] |= {"unlearn_seconds": seconds, "unlearn_examples": int(1000 * seconds), "retrain_examples": 10000}
        found.append(run)
    return found


def row(comparison, title):
    at = [cells[0] for cells in comparison.rows].index(title)
    return comparison.rows[at][1:], comparison.best[at - 1]


def test_the_best_are_marked(runs):
    found = compare(runs)
    assert found.rows[0] == ("", "original", "a", "b", "c", "twin")
    # a and b lie within the floor of 2.5: no twin can be told from them. The membership floor is below all.
    assert row(found, "gap: forget accuracy (points)")[1] == [True, True, False]
    assert row(found, "gap: membership AUC (points)")[1] == [True, False, False]
    assert row(found, "test accuracy (%)")[1] == [False, True, False]
    cells, best = row(found, "seconds")
    assert cells[1:] == ("5.0", "6.0", "10.0", "19.5") and best == [True, False, False]  # dearer is never as good
    assert row(found, "cost (% of one retraining)")[0][1:4] == ("50", "60", "100")
    cells, _ = row(found, "gap: forget accuracy (points)")
    original, retrained = (runs[0]["models"][name]["accuracy"]["forget"] for name in ("original", "retrained"))
    assert cells == (f"{100 * abs(original - retrained):.2f}", "1.00", "2.00", "4.00", "2.50")


def test_what_is_dominated_is_not_ringed(runs):
    found = compare(runs)
    points = {point["name"]: point for point in found.points}
    assert (points["a"]["gap"], points["a"]["accuracy"], points["a"]["cost"]) == (1.0, 90.0, 0.5)
    assert points["a"]["best"] and points["b"]["best"] and not points["c"]["best"]
    assert points["original"]["cost"] == 0 and found.forgetting_floor == 1.5


@pytest.mark.parametrize(
    "path, value",
    [(("task",), "causal_lm"), (("data", "source"), "x"), (("data", "forget_digest"), "ff"),
     (("data", "splits"), {"forget": 3})],
)  # fmt: skip
def test_runs_of_other_requests_are_refused(runs, path, value):
    block = runs[1]
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    with pytest.raises(UserError, match="runs 1 and 2 are not comparable") as error:
        compare(runs)
    assert "\n" not in str(error.value) and "00ff" not in str(error.value)
    with pytest.raises(UserError):
        compare_runs(runs)


def test_what_limits_the_comparison_is_said(runs):
    runs[1]["models"]["retrained"]["loss"]["test"] += 1
    runs[1]["environment"]["device"] = "NVIDIA"
    notes = " ".join(compare(runs).notes)
    assert "different twins" in notes and "different machines" in notes
    for run in runs:
        run["data"]["forget_digest"] = None
    assert "could not be checked" in " ".join(compare(runs).notes)
    # Of twins that differ no single figure stands for all.
    runs[2]["floor"]["forget_accuracy"] = 9.0
    assert row(compare(runs), "gap: forget accuracy (points)")[0][-1] == "–"


def test_page_and_text(runs):
    runs[0]["method"]["name"] = "<script>$x$"
    page, text = compare_runs(runs), comparison_text(compare(runs))
    assert "<script" not in page and "http" not in page.split("</style>")[1].replace("http://www.w3.org", "")
    assert page == compare_runs(runs) and page.count("★") == 2 + sum(map(sum, compare(runs).best))
    assert text.count(" *") == sum(map(sum, compare(runs).best))
    assert "no twin" not in text and "None" not in text


def test_runs_without_twins_compare_what_they_can(make_evidence):
    found = compare([make_evidence(0), make_evidence(0)])
    titles = [cells[0] for cells in found.rows]
    assert "test accuracy (%)" in titles and "gap: average (points)" not in titles
    assert found.points == [] and found.names == ["nabla_tau 1", "nabla_tau 2"]
    assert "Forgetting, utility" not in compare_runs([make_evidence(0), make_evidence(0)])


def stored(tmp_path, runs):
    for i, run in enumerate(runs):
        (tmp_path / f"run{i}").mkdir()
        (tmp_path / f"run{i}" / "evidence.json").write_text(json.dumps(run))
    return [str(tmp_path / f"run{i}") for i in range(len(runs))]


def test_the_command(tmp_path, runs, capsys):
    folders = stored(tmp_path, runs)
    write_report(folders[:1])
    assert "retrained ×4" in capsys.readouterr().out
    assert "Unlearning report: a" in (tmp_path / "run0" / "report.html").read_text()
    write_report(folders, str(tmp_path / "all.html"))
    assert "cost (% of one retraining)" in capsys.readouterr().out
    assert "Unlearning runs compared" in (tmp_path / "all.html").read_text()
    assert not (tmp_path / "run1" / "report.html").exists()


def test_mistakes_in_the_command(tmp_path, runs):
    folders = stored(tmp_path, runs[:1])
    for arguments in ([], [str(tmp_path / "nowhere")], [folders[0], str(tmp_path)]):
        with pytest.raises(UserError):
            write_report(arguments)
    with pytest.raises(UserError, match="cannot be written"):
        write_report(folders, str(tmp_path / "no" / "where.html"))
    (tmp_path / "run0" / "evidence.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="no evidence of this version"):
        write_report(folders)


def test_names_tell_runs_of_one_method_apart(runs):
    assert run_names(runs, ["x", "y", "z"]) == ["a", "b", "c"]
    runs[1]["method"]["name"] = "a"
    assert run_names(runs, ["out/x", "out/y", "out/z"]) == ["x", "y", "z"]
    assert run_names(runs, ["p/x", "q/x", "r/x"]) == ["p/x", "q/x", "r/x"]
