"""A row that cannot be used is told with the line of its file, and with no line where that may be wrong."""

import gzip
import json

import pytest

from hf_unlearn.data.file_lines import line_of
from hf_unlearn.data.sources import Source, load_files, load_source

CSV = 'text,n,ok\n"a, b",7,True\n\n"two\nlines",007,False\nlast,,True\n'  # rows begin on lines 2, 4 and 6


def told(source: Source, split: str, row: int) -> str:
    return str(source.row_error(split, row, "it is bad"))


def write(folder, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("name, sign", [("rows.csv", ","), ("rows.tsv", "\t"), ("semicolons.csv", ";")])
def test_rows_of_a_table_are_told_by_their_line(tmp_path, name, sign):
    text = CSV.replace("a, b", "a- b").replace(",", sign).replace("- b", ", b")
    file = write(tmp_path, name, text)
    for source in (load_files(file), load_source(file)):
        assert [told(source, "train", row) for row in range(3)] == [
            f"row {row}: it is bad (train rows, counted from 0; line {line} of '{name}'): mend or leave out such rows"
            for row, line in enumerate((2, 4, 6))
        ]


def test_rows_of_json_lines_and_of_packed_files(tmp_path):
    rows = [{"text": "a", "n": 1, "flag": True}, {"text": None, "n": 2, "flag": False}]
    lines = "\n\n".join(map(json.dumps, rows))
    source = load_files(write(tmp_path, "rows.jsonl", lines))
    assert "; line 3 of 'rows.jsonl')" in told(source, "train", 1)
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert "; line 4 of 'rows.csv.gz')" in told(load_files(str(tmp_path / "rows.csv.gz")), "train", 1)


def test_of_a_part_it_is_the_line_of_the_whole_file(tmp_path):
    test = write(tmp_path, "test.csv", "text\n" + "\n".join(f"t{k}" for k in range(8)))
    source = load_files(write(tmp_path, "train.csv", "text\n" + "\n".join(f"r{k}" for k in range(8))), test=test)
    source.places["train"], source.train = [5, 2], source.train.select([5, 2])
    source.places["validation"], source.validation = [7], source.test.select([7])  # taken out of the test rows
    assert "row 5: it is bad (train rows, counted from 0; line 7 of 'train.csv')" in told(source, "train", 0)
    assert "row 7: it is bad (validation rows, counted from 0; line 9 of 'test.csv')" in told(source, "validation", 0)


def test_where_another_row_stands_no_line_is_told(tmp_path):
    file = write(tmp_path, "rows.csv", CSV)
    source = load_files(file)
    source.train = source.train.select([2, 0])  # as where others were put before them
    assert told(source, "train", 0) == "row 0: it is bad (train rows, counted from 0): mend or leave out such rows"
    assert line_of(file, 1, {"text": "two\nlines"}) == 4 and line_of(file, 1, {"text": "two"}) is None
    assert line_of(file, 9, {"text": "last"}) is None and line_of(file, 0, {"other": "a, b"}) is None
    assert line_of(write(tmp_path, "list.json", '[\n{"text": "x"}\n]'), 0, {"text": "x"}) is None
    assert line_of(str(tmp_path / "rows.parquet"), 0, {"text": "x"}) is None
