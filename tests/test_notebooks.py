"""The notebooks run from top to bottom, and what is committed of them reads well and names nobody's machine."""

import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LARGE = sorted((FOLDER / "large").glob("*.ipynb"))  # with pretrained models: run by `make notebooks`
SOMEBODYS = re.compile(r"(?<![\w<.])/(?:home|Users|root|tmp|work|var|usr|opt)/|[A-Z]:\\\\|site-packages|\bTraceback\b")

spec = importlib.util.spec_from_file_location("notebooks_run", FOLDER / "run.py")
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_they_are_all_there():
    names = {path.stem for path in PATHS}
    assert names == {"first_unlearning", "deletion_request", "compare_methods", "drawn_digits", "your_own_method"}
    assert {path.stem for path in LARGE} == {"my_bert", "chat_model"}


LONG = {name: [pytest.mark.long] for name in ("deletion_request", "compare_methods", "drawn_digits")}


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(p, marks=LONG.get(p.stem, []), id=p.stem) for p in PATHS])
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    work = tmp_path / "work"
    work.mkdir()
    notebook = run.execute(path, work, timeout=300)
    pictures = sum(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert pictures >= 2


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_committed_is_whole(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and path.stat().st_size < 500_000


@pytest.mark.parametrize("path", [*PATHS, *LARGE], ids=lambda path: path.stem)
def test_what_is_committed_names_no_machine(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            shown = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
            assert not SOMEBODYS.search(json.dumps([shown, output.get("text", "")]))


@pytest.mark.parametrize("path", [*PATHS, *LARGE], ids=lambda path: path.stem)
def test_what_it_links_to_exists(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#]+)", text.replace("\n", " ")):
        assert link.startswith("http") or (path.parent / link).exists(), link


def test_cleaning_leaves_results_and_takes_the_rest():
    streams = [
        ("stderr", "warning from a machine\n"),
        ("stdout", "training: step 1,320 of 1,320, 9 s, loss 0.1\naccuracy 97\n"),
        ("stdout", "training: step 5 of 10, 9 s\n"),
    ]
    outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in streams]
    outputs.append(nbformat.v4.new_output("display_data", {"text/html": "<div><progress value='3'/></div>"}))
    outputs.append(
        nbformat.v4.new_output("display_data", {"image/png": "aGk="}, metadata={"needs_background": "light"})
    )
    cell = nbformat.v4.new_code_cell("x", outputs=outputs, metadata={"execution": {"iopub.execute_input": "now"}})
    notebook = run.clean(
        nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": {"name": "mine", "display_name": "Mine"}})
    )
    (cleaned,) = notebook.cells
    assert [output.get("text") or output.data for output in cleaned.outputs] == [
        "accuracy 97\n",
        {"image/png": "aGk="},
    ]
    assert cleaned.metadata == {} and cleaned.outputs[1].metadata == {}
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert SOMEBODYS.search("in /home/me/x") and not SOMEBODYS.search("</div> and/or http://a.b/home/x")
