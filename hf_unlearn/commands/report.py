"""`hf-unlearn report FOLDER …`: the table of one run and its page, or several runs side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hf_unlearn.errors import UserError
from hf_unlearn.report.compare import compare, comparison_text
from hf_unlearn.report.compare_page import compare_runs, run_names
from hf_unlearn.report.evidence import read_evidence
from hf_unlearn.report.screen import render_screen
from hf_unlearn.run.line_parser import LineParser


def report(argv: list[str] | None = None) -> None:
    """Raises `UserError` for folders without evidence, or runs that are not comparable."""
    parser = LineParser(prog="hf-unlearn report", description="The table and the page of a finished run, or several.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="--output_dir of a finished run")
    parser.add_argument("--output", help="where the page goes (default: report.html in the folder of a single run)")
    given = parser.parse_args(argv)
    write_report(given.folders, given.output)


def write_report(folders: Sequence[str], output: str | None = None) -> None:
    """Print what one run or several show, and write the page.

    Args:
        folders: of finished runs.
        output: where the page goes. Default: `report.html` in the folder of a single run; of several, only what is
            printed.
    """
    if not folders:
        raise UserError("report takes at least one folder: hf-unlearn report FOLDER")
    for folder in folders:
        if (Path(folder) / "contest.json").is_file():
            raise UserError(f"{folder} holds a contest: open its contest.html, or name folders of single runs in it")
    runs = [read_evidence(folder) for folder in folders]
    if len(runs) == 1:
        from hf_unlearn.report.html import render_html

        with _said_if_edited(folders):
            table, page = render_screen(runs[0]), render_html(runs[0])
        print(table)
        return _write(Path(output) if output else Path(folders[0]) / "report.html", page)
    with _said_if_edited(folders):
        names = run_names(runs, folders)
        text, side_by_side = comparison_text(compare(runs, names)), compare_runs(runs, names) if output else ""
    print(text)
    if output:
        _write(Path(output), side_by_side)


@contextmanager
def _said_if_edited(folders: Sequence[str]) -> Iterator[None]:
    """Evidence has all its keys where it was read; values of other kinds than a run writes show when it is drawn."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        where = ", ".join(map(str, folders))
        raise UserError(f"evidence.json in {where} was edited: a value is of another kind ({error})") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None
    print(f"\nThe report is in {path}")
