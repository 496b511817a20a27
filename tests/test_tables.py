"""Every table of results that a page shows is the one that the stored runs give."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tables(request):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    request.addfinalizer(lambda: sys.path.remove(str(ROOT / "benchmarks")))
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_show_what_is_stored(tables):
    pages = {page: (ROOT / page).read_text() for page in tables.PAGES}
    for name, make in tables.TABLES.items():
        shown = [page for page, text in pages.items() if f"<!-- table: {name} -->" in text]
        assert shown, f"no page shows the table {name}"
        for page in shown:
            assert tables.place(pages[page], name, make()) == pages[page], (
                f"{page} shows another table {name}: python benchmarks/tables.py --write"
            )


def test_a_table_is_put_below_its_marker_and_nowhere_else(tables):
    text = "a\n\n<!-- table: x -->\n\n| old |\n| --- |\n\nb\n\n| other |\n"
    assert tables.place(text, "x", "| new |") == "a\n\n<!-- table: x -->\n\n| new |\n\nb\n\n| other |\n"
    assert tables.place("<!-- table: x -->\n\nb\n", "x", "| new |") == "<!-- table: x -->\n\n| new |\n\nb\n"


def test_runs_are_named_for_people(tables):
    assert tables._name("npo:learning_rate=5e-5,num_train_epochs=4") == "`npo`, rate 5e-5"
    assert tables._name("nabla_tau:known=false") == "`nabla_tau`, base unknown"
    assert tables._name("nabla_tau:lora=16") == "`nabla_tau`, LoRA rank 16"


def test_the_list_of_quality_results_is_the_stored_one(tables):
    import quality

    shown = (ROOT / "benchmarks" / "results" / "quality.md").read_text()
    for case in tables.SCRATCH:
        assert quality.table(case) in shown, f"python benchmarks/quality.py --table > results/quality.md ({case})"
