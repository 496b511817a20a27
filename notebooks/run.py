"""Runs notebooks and writes them back with clean outputs: `python notebooks/run.py notebooks/*.ipynb`.

Clean: results and pictures stay; progress, warnings, times and whatever names this machine go.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

INHERITED = os.environ.get("PYTHONPATH", "")  # before the folder of a notebook, with its helpers, is put on the path
PROGRESS = re.compile(r"^.*: step [\d,]+ of [\d,]+, [\d.]+ (s|min|h).*\n?", re.MULTILINE)


def execute(path: Path, folder: Path, timeout: int = 3600) -> nbformat.NotebookNode:
    """The notebook with its outputs; raises `CellExecutionError` at the first cell that fails.

    Args:
        folder: working folder, left alone afterwards.
        timeout: of a cell, in seconds.
    """
    notebook = nbformat.read(path, as_version=4)
    metadata = {"path": str(folder)}
    return NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": metadata}).execute()


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook without progress, warnings, times, and versions of this machine's kernel."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_cleaned, cell.outputs) if output is not None]
    return notebook


def _cleaned(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    if output.output_type == "stream":
        output.text = "" if output.name == "stderr" else PROGRESS.sub("", output.text)
        return output if output.text else None
    data = output.get("data", {})
    if "<progress" in data.get("text/html", "") or "widget" in " ".join(data):
        return None
    output.metadata = {}
    return output


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path.parent.resolve()), INHERITED)))
        with tempfile.TemporaryDirectory() as folder:
            notebook = clean(execute(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.name}: done")


if __name__ == "__main__":
    main(sys.argv[1:])
