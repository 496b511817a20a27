"""What stands in a csv file is what is compared: no id becomes another one on the way."""

import csv

import datasets
import pytest
from PIL import Image

from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.sources import join_forget_retain, load_files, load_source
from hf_unlearn.errors import UserError


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def load(tmp_path, text: str | bytes, name: str = "rows.csv"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_source(str(path))


def places(source, tmp_path, ids: str) -> list[int]:
    (tmp_path / "ids.txt").write_text(ids)
    return ForgetRequest(ids_file=str(tmp_path / "ids.txt"), id_column="id").select(source).tolist()


def test_leading_zeros_are_part_of_an_id(tmp_path):
    source = load(tmp_path, "id,text\n007,a\n7,b\n8,c\n")
    assert places(source, tmp_path, "007") == [0] and places(source, tmp_path, "7") == [1]
    assert ForgetRequest(where=["id=007"]).select(source).tolist() == [0]
    numbers = load(tmp_path, "id,text\n7,b\n8,c\n", "numbers.csv")
    with pytest.raises(UserError, match="1 of 1 ids"):
        places(numbers, tmp_path, "007")


def test_neighbours_near_the_limit_of_floats_stay_apart(tmp_path):
    source = load(tmp_path, "id,text\n9007199254740993,a\n9007199254740992,b\n,c\n123456789012345678901,d\n")
    assert places(source, tmp_path, "9007199254740993") == [0]
    assert places(source, tmp_path, "123456789012345678901") == [3]
    whole = load(tmp_path, "id,text\n9007199254740993,a\n9007199254740992,b\n,c\n", "whole.csv")
    assert whole.train.features["id"].dtype == "int64" and places(whole, tmp_path, "9007199254740993") == [0]


def test_ids_that_floats_cannot_hold_are_refused(tmp_path):
    rows = datasets.Dataset.from_dict({"id": [2.0**53, 1.0], "text": ["a", "b"]})
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="ids this large run together"):
        places(load_source(str(tmp_path / "rows.parquet")), tmp_path, "9007199254740993")
    assert places(load_source(str(tmp_path / "rows.parquet")), tmp_path, "1.0") == [1]


@pytest.mark.parametrize(
    "cells, kind",
    [
        (["1", "-2", "0"], "int64"), (["1", "", "3"], "int64"), (["01", "2"], "string"), (["+1", "2"], "string"),
        (["-0", "1"], "string"), (["1.5", "-0.25", ""], "float64"), (["1.50", "2.5"], "string"),
        (["1", "2.5"], "string"), (["nan", "1.5"], "string"), (["True", "False"], "bool"), (["True", "1"], "string"),
        (["9223372036854775808"], "string"), (["NA", "1"], "string"), (["", "x"], "string"), ([" 1", "2"], "string"),
    ],
)  # fmt: skip
def test_a_column_is_numbers_where_each_is_written_as_it_stood(tmp_path, cells, kind):
    source = load(tmp_path, "value,text\n" + "".join(f"{cell},row\n" for cell in cells))
    assert source.train.features["value"].dtype == kind
    found = [None if value is None else str(value) for value in source.train["value"]]
    assert found == [cell or None for cell in cells]


def test_splits_agree_on_the_type(tmp_path):
    load(tmp_path, "id,text\n1,a\n2,b\n", "data/train.csv")
    source = load(tmp_path, "id,text\n003,c\n", "data/test.csv")
    source = load_source(str(tmp_path / "data"))
    assert source.train["id"][:] == ["1", "2"] and source.test["id"][:] == ["003"]


def test_two_files_join_although_one_holds_text(tmp_path):
    forget = load(tmp_path, "id,text\n1,a\n", "forget.csv").train
    retain = load(tmp_path, "id,text\n007,b\n", "retain.csv").train
    train, _ = join_forget_retain(forget, retain)
    assert train["id"][:] == ["1", "007"]


def test_late_letters_in_a_long_column(tmp_path):
    """Readers that look at a block at a time disagree with themselves."""
    source = load(tmp_path, "id,text\n" + "".join(f"{i},row\n" for i in range(10_001)) + "A1,row\n")
    assert source.train.features["id"].dtype == "string" and places(source, tmp_path, "A1") == [10_001]


@pytest.mark.parametrize("name, text", [("a.tsv", "id\ttext\n007\ta, b\n"), ("b.csv", '\ufeffid,text\n007,"a, b"\n')])
def test_tabs_and_byte_order_marks(tmp_path, name, text):
    assert load(tmp_path, text, name).train[:] == {"id": ["007"], "text": ["a, b"]}


def test_a_packed_file(tmp_path):
    import gzip

    assert load(tmp_path, gzip.compress(b"id,text\n007,a\n"), "rows.csv.gz").train[:] == {"id": ["007"], "text": ["a"]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "'rows.csv' is empty"),
        ("id,text\n", "'rows.csv' has no rows"),
        ("id,text,id\n1,a,2\n", "two columns called 'id'"),
        ("id,text\n1,a,xyzzy\n", "3 cells in the first row and 2 in the header"),
        ("id,text\n1,a\n1,a,xyzzy\n", "Expected 2 fields in line 3, saw 3"),
        ('id,text\n1,"xyzzy\n', "EOF inside string"),
        (b"id,text\n1,caf\xe9 xyzzy\n", "line 2 of 'rows.csv' is not in UTF-8"),
    ],
)
def test_files_that_are_refused(tmp_path, capfd, text, message):
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert message in str(error.value) and "\n" not in str(error.value) and "xyzzy" not in str(error.value)


@pytest.mark.parametrize("separator, word", [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_spreadsheet_of_another_country(tmp_path, separator, word):
    rows = '\ufeffid;text\n007;a, b\n8;"c; d"\n'.replace(";", separator)
    source = load(tmp_path, rows)
    assert source.train[:] == {"id": ["007", "8"], "text": ["a, b", f"c{separator} d"]}
    assert source.notes == [f"the cells of rows.csv are separated by {word}"]
    (tmp_path / "test.csv").write_text("id,text\n1,e\n")
    with pytest.raises(UserError, match=f"separated by {word} and commas"):
        load_files(str(tmp_path / "rows.csv"), test=str(tmp_path / "test.csv"))


def test_one_column_stays_one_column(tmp_path):
    source = load(tmp_path, "text\na;b\n")
    assert source.train[:] == {"text": ["a;b"]} and source.notes == []


def test_files_with_different_columns(tmp_path):
    """Test rows need no ids; files of one split go together, and must be alike."""
    load(tmp_path, "id,text,day\n1,a,007\n", "data/train.csv")
    (tmp_path / "data" / "test.csv").write_text("text,day\nb,8\n")
    for source in (
        load_source(str(tmp_path / "data")),
        load_files(str(tmp_path / "data" / "train.csv"), test=str(tmp_path / "data" / "test.csv")),
    ):
        assert source.train[:] == {"id": [1], "text": ["a"], "day": ["007"]}
        assert source.test[:] == {"text": ["b"], "day": ["8"]}
    for part, text in enumerate(("id,text\n1,a\n", "id,label\n1,a\n")):
        load(tmp_path, text, f"parts/train-{part}.csv")
    with pytest.raises(UserError, match="'train-1.csv' and 'train-0.csv' .* different columns, label, text in one"):
        load_source(str(tmp_path / "parts"))


def test_a_file_for_each_split(tmp_path):
    """Of different kinds too; those of one kind agree on types."""
    (tmp_path / "a.csv").write_text("id,text\n1,a\n2,b\n")
    (tmp_path / "b.tsv").write_text("id\ttext\n003\tc\n")
    (tmp_path / "c.csv").write_text("id,text\n007,d\n")
    source = load_files(*(str(tmp_path / name) for name in ("a.csv", "b.tsv", "c.csv")))
    assert source.name == "a.csv" and source.train["id"][:] == ["1", "2"]
    assert source.validation["id"][:] == ["003"] and source.test["id"][:] == ["007"]
    with pytest.raises(UserError, match="`test_file`: there is no file"):
        load_files(str(tmp_path / "a.csv"), test=str(tmp_path / "d.csv"))
    with pytest.raises(UserError, match="must be different files"):
        load_files(str(tmp_path / "a.csv"), test=str(tmp_path / "a.csv"))


def test_a_column_without_a_name_is_the_index_that_pandas_writes(tmp_path):
    source = load(tmp_path, ",id,text,\n0,007,a,\n1,7,b,\n")
    assert source.train.column_names == ["Unnamed: 0", "id", "text", "Unnamed: 3"]
    assert places(source, tmp_path, "007") == [0]


def test_cells_may_be_long(tmp_path):
    source = load(tmp_path, f"id,text\n1,{'a' * 200_000}\n2,b\n")
    assert len(source.train["text"][0]) == 200_000 and csv.field_size_limit() < 200_000


def test_ids_beside_images_do_not_run_together(tmp_path):
    """`datasets` reads `metadata.csv` with a guess of its own."""
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    for k in range(3):
        Image.new("L", (2, 2), k).save(folder / f"{k}.png")

    def rows(*ids: str):
        lines = [f"{k}.png,{each},{k % 2}" for k, each in enumerate(ids)]
        (folder / "metadata.csv").write_text("\n".join(["file_name,id,label", *lines]) + "\n")
        return load_source(str(tmp_path / "images")).train

    assert rows("7", "8", "")["id"][:] == [7, 8, None] and rows("07", "7", "x")["id"][:] == ["07", "7", "x"]
    with pytest.raises(UserError, match="column 'id' of metadata.csv .* write metadata.jsonl instead"):
        rows("007", "7", "8")


def test_a_quote_that_would_join_rows_is_refused(tmp_path):
    rows = ['"hello\t1', "fine\t2", 'bye" now\t3', "ok\t4"]
    for separator, name in (("\t", "rows.tsv"), (",", "rows.csv")):
        text = "\n".join(["text\tid", *rows]).replace("\t", separator)
        with pytest.raises(UserError, match=f"a cell from line 2 to 4 of '{name}' begins with a quote"):
            load(tmp_path, text, name)
    kept = load(tmp_path, 'text,id\n"two\nlines",1\n5" disks,2\n"a "b" c",3\n"say ""so""",4\n').train
    assert kept["id"][:] == [1, 2, 3, 4] and kept["text"][0] == "two\nlines" and kept["text"][3] == 'say "so"'
