import json
from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pytest

from hf_unlearn.data.request import ForgetRequest, class_ids
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def source():
    rows = 30
    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=NAMES),
            "id": datasets.Value("int64"),
            "user": datasets.Value("string"),
            "weight": datasets.Value("float64"),
            "flag": datasets.Value("bool"),
        }
    )
    columns = {
        "label": [i % 3 for i in range(rows)],
        "id": [100 + i for i in range(rows)],
        "user": [f"user{i // 5}" for i in range(rows)],
        "weight": [i / 2 for i in range(rows)],
        "flag": [i < 4 for i in range(rows)],
    }
    return Source("mine", datasets.Dataset.from_dict(columns, features=features))


def select(source, **request):
    return ForgetRequest(**request).select(source, "label", NAMES).tolist()


def test_classes_by_name_case_and_id(source):
    bees = [i for i in range(30) if i % 3 == 1]
    assert select(source, classes=["bee"]) == select(source, classes=["BEE"]) == select(source, classes=["1"]) == bees
    assert len(select(source, classes=["bee", "cat"])) == 20


def test_unknown_class_names_what_exists_and_not_what_was_asked(source):
    with pytest.raises(UserError) as error:
        select(source, classes=["bees", "ant"])
    message = "1 of 2 `classes` are unknown; nearest: bee; the classes are: ant, bee, cat"
    assert str(error.value) == message


def test_fraction_is_seeded_and_exact(source):
    first = select(source, fraction=0.2, seed=3)
    assert len(first) == 6 and first == sorted(set(first))
    assert first == select(source, fraction=0.2, seed=3) != select(source, fraction=0.2, seed=4)


def test_fraction_of_groups_takes_whole_groups(source):
    chosen = select(source, fraction=0.34, group_column="user")
    users = {source.train["user"][i] for i in chosen}
    assert len(users) == 2 and len(chosen) == 10
    assert chosen == [i for i in range(30) if source.train["user"][i] in users]


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1, float("nan")])
def test_fraction_outside_the_unit_interval(fraction):
    with pytest.raises(UserError, match="between 0 and 1"):
        ForgetRequest(fraction=fraction)


def test_ids_from_every_kind_of_file(source, tmp_path):
    (tmp_path / "ids.txt").write_text("103\n\n100\n103\n")
    (tmp_path / "ids.json").write_text(json.dumps([103, "100"]))
    (tmp_path / "ids.csv").write_text("note,id\nx,103\ny,100\n")
    for name in ("ids.txt", "ids.json", "ids.csv"):
        assert select(source, ids_file=str(tmp_path / name), id_column="id") == [0, 3]
    (tmp_path / "users.txt").write_text("user1\n")
    assert select(source, ids_file=str(tmp_path / "users.txt"), id_column="user") == [5, 6, 7, 8, 9]


def test_ids_that_are_not_in_the_data_are_counted_and_not_shown(source, tmp_path):
    (tmp_path / "ids.txt").write_text("103\n999\nabc\n1e400\n")
    with pytest.raises(UserError) as error:
        select(source, ids_file=str(tmp_path / "ids.txt"), id_column="id")
    assert "3 of 4 ids" in str(error.value)
    assert not any(value in str(error.value) for value in ("999", "abc", "103"))


def test_bad_id_files(source, tmp_path):
    (tmp_path / "ids.csv").write_text("key\n1\n")
    (tmp_path / "ids.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("[1,")
    (tmp_path / "empty.txt").write_text("\n")
    for name, message in {
        "ids.csv": "has no column 'id'; its columns are: key",
        "ids.json": "one JSON list",
        "broken.json": "cannot be read",
        "empty.txt": "holds no id",
        "absent.txt": "cannot be read",
    }.items():
        with pytest.raises(UserError, match=message):
            select(source, ids_file=str(tmp_path / name), id_column="id")
    (tmp_path / "ids.txt").write_text("1\n")
    for column in (None, "key"):
        with pytest.raises(UserError, match="the columns are: label, id, user, weight, flag"):
            select(source, ids_file=str(tmp_path / "ids.txt"), id_column=column)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        (["user=user1"], [5, 6, 7, 8, 9]),
        (["id=103", "id=101"], [1, 3]),
        (["weight=1"], [2]),
        (["weight=1.50"], [3]),
        (["flag=true"], [0, 1, 2, 3]),
        (["user = user1", "id=100"], [0, 5, 6, 7, 8, 9]),
        (["label=bee"], None),
    ],
)
def test_where(source, where, rows):
    request = ForgetRequest(where=where)
    if rows is None:  # by the class's name; of labels this is a class, which has an argument of its own
        with pytest.raises(UserError, match="of the label column 'label', .+: name those with `classes`") as error:
            request.select(source, "label", NAMES)
        assert "bee" not in str(error.value)
        rows = list(range(1, 30, 3))
        assert request.select(source).tolist() == rows
    else:
        assert request.select(source, "label", NAMES).tolist() == rows


def test_rows_of_the_request_elsewhere_are_noted(source):
    beside = source.train.select(range(3, 12))
    whole = replace(source, validation=beside, test=beside.remove_columns("user"))
    request = ForgetRequest(where=["user=user1", "user=user2"])
    note = "7 validation rows meet the request too: no model learned them, they stay"
    assert request.also_named(whole) == [note] and "user1" not in note
    assert ForgetRequest(where="user=user5").also_named(whole) == []
    assert ForgetRequest(fraction=0.1).also_named(whole) == []
    held = replace(whole, held_out=beside, places={"validation": np.arange(9)})  # the request says it of these itself
    assert request.also_named(held) == []


def test_a_column_with_a_sign_in_its_name():
    """A spreadsheet calls a column whatever it likes; one that reads two ways is no guess."""
    rows = datasets.Dataset.from_dict({"a=b": ["v", "w", "v"], "text": ["a=b=v", "=", "x"]})
    source = Source("mine", rows, test=rows.select([0, 1]))
    for where, places in {"a=b=v": [0, 2], "a=b = w": [1], "text=a=b=v": [0], "text==": [1]}.items():
        assert ForgetRequest(where=where).select(source).tolist() == places
    request = ForgetRequest(where=["a=b=v", "text=x"])
    request.select(source)
    assert request.public() == {"kind": "where", "column": "a=b, text", "count": 2}
    assert request.also_named(source) == ["1 test rows meet the request too: no model learned them, they stay"]
    beside = Source("mine", rows.add_column("a", ["x", "b=v", "z"]))
    with pytest.raises(UserError, match="may be on column 'a' and 'a=b': rename one of them") as error:
        ForgetRequest(where="a=b=v").select(beside)
    assert "'v" not in str(error.value) and "=v" not in str(error.value)
    request = ForgetRequest(where={"a=b": "w", "a": ["b=v", "z"]})  # of columns by name nothing is guessed
    assert request.select(beside).tolist() == [1, 2] and ForgetRequest(where={"a=b": "v"}).select(beside).tolist() == [
        0,
        2,
    ]
    assert request.public() == {"kind": "where", "column": "a=b, a", "count": 3} and "b=v" not in repr(request)


def test_bad_conditions(source):
    with pytest.raises(UserError, match="needs column=value"):
        select(source, where=["user"])
    with pytest.raises(UserError, match="no column 'name'; the columns are"):
        select(source, where=["name=user1"])
    with pytest.raises(UserError, match="1 of 2 `where` conditions match no training row") as error:
        select(source, where=["user=user1", "user=nobody"])
    assert "nobody" not in str(error.value)


def test_all_rows_no_rows_and_emptied_classes(source):
    with pytest.raises(UserError, match="takes no training row"):
        select(source, fraction=0.001)
    with pytest.raises(UserError, match="takes all 30 training rows"):
        select(source, classes=NAMES)
    with pytest.raises(UserError, match="leaves 2 retained classes without a row"):
        select(source, where=[f"id={100 + i}" for i in range(30) if i % 3])


@pytest.mark.parametrize("request_fields", [{}, {"classes": []}, {"classes": ["a"], "fraction": 0.1}])
def test_exactly_one_request(request_fields):
    with pytest.raises(UserError, match="give exactly one of"):
        ForgetRequest(**request_fields)


def test_rows_that_were_held_out_need_no_forgetting(source, tmp_path):
    everything = source.train
    left = np.arange(3, 30)
    held = Source("mine", everything.select(left), held_out=everything.select([0, 1, 2]), places={"train": left})
    (tmp_path / "ids.txt").write_text("100\n103\n")
    request = ForgetRequest(ids_file=str(tmp_path / "ids.txt"), id_column="id")
    assert request.select(held).tolist() == [0]
    assert request.notes == ["1 rows of the request were held out before training, so no model has to forget them"]
    own = ForgetRequest(rows=np.arange(5))
    assert own.select(held).tolist() == [0, 1] and own.notes[0].startswith("3 rows")
    assert ForgetRequest(where=["id=101", "id=104"]).select(held).tolist() == [1]


def test_nothing_private_is_shown():
    where = ForgetRequest(where=["user=Jane Roe", "user=John Doe"])
    classes = ForgetRequest(classes=["secret"])
    ids = ForgetRequest(ids_file="/home/jane/ids.txt", id_column="id")
    for request in (where, classes, ids):
        shown = f"{request!r} {request} {request.public(label_column='label')}"
        assert not any(word in shown for word in ("Jane", "jane", "secret", "John"))
    assert where.public() == {"kind": "where", "column": "user", "count": 2}
    assert classes.public(publish=True, label_column="y") == {
        "kind": "classes",
        "column": "y",
        "count": 1,
        "classes": ["secret"],
    }
    fraction = ForgetRequest(fraction=0.1, group_column="user")
    assert fraction.public() == {"kind": "fraction", "column": "user", "fraction": 0.1}


def test_held_out_rows_of_a_class_need_no_forgetting():
    rows = datasets.Dataset.from_dict({"label": [0, 1, 0, 1, 0, 1]})
    rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    held = Source("mine", rows.select([3, 4, 5]), held_out=rows.select([0, 1, 2]), places={"train": np.arange(3, 6)})
    request = ForgetRequest(classes=["a"])
    assert request.select(held, "label", ["a", "b"]).tolist() == [1]
    assert request.notes == ["2 rows of the request were held out before training, so no model has to forget them"]


def test_held_out_rows_of_a_request_are_found_whatever_its_kind(tmp_path):
    ids = datasets.Dataset.from_dict({"id": [10, 11, 12, 13, 14, 15]})
    places = {"train": np.array([0, 2]), "validation": np.array([4, 1]), "test": np.array([5, 3])}
    parts = {split: ids.select(at) for split, at in places.items()}
    source = Source("mine", **parts, held_out=ids.select([4, 1, 5, 3]), places=places)
    (tmp_path / "ids.txt").write_text("11\n12\n13\n")
    kinds = {"ids_file": str(tmp_path / "ids.txt")} | {"id_column": "id"}, {"where": ["id=11", "id=12", "id=13"]}
    for kind in (*kinds, {"rows": np.array([1, 2, 3])}):
        assert [part["id"][:] for part in ForgetRequest(**kind).held_out(source)] == [[11], [13]]
    assert [len(part) for part in ForgetRequest(fraction=0.5).held_out(source)] == [0, 0]
    given = Source("mine", **parts)  # validation and test are other files: ids there are other rows
    assert ForgetRequest(where=["id=11"]).held_out(given) == []


def of_texts(*values) -> Source:
    return Source("mine", datasets.Dataset.from_dict({"id": list(values)}))


def test_a_value_is_compared_as_it_is_written():
    """Blanks around ` = ` are those of who writes the condition, all others of the value."""
    source = of_texts("a", "a ", " a", "b")
    for where, places in {"id=a": [0], "id=a ": [1], "id= a": [2], "id = a": [0], "id = a ": [1]}.items():
        assert ForgetRequest(where=[where]).select(source).tolist() == places


def test_rows_that_may_be_the_same_person_are_counted(tmp_path):
    source = of_texts("Zoë", "Zoe\u0308", "zoë ", "'Zoë'", "Zoe", "7", "007", None)
    note = (
        "training rows that differ from the request in leading zeros, quotes, spaces, case or the form of Unicode "
        "alone: {}; they are kept, name them too if they are meant"
    )
    request = ForgetRequest(where=["id=Zoë", "id=007"])
    assert request.select(source).tolist() == [0, 6] and request.notes == [note.format(4)]
    (tmp_path / "ids.txt").write_text("Zoë\nZoe\u0308\nzoë \n'Zoë'\n", encoding="utf-8")
    request = ForgetRequest(ids_file=str(tmp_path / "ids.txt"), id_column="id")
    with pytest.raises(UserError, match="1 of 4 ids"):  # a line ends without its blanks
        request.select(source)
    (tmp_path / "ids.json").write_text(json.dumps(["Zoë", "Zoe\u0308", "zoë "]))
    request = ForgetRequest(ids_file=str(tmp_path / "ids.json"), id_column="id")
    assert request.select(source).tolist() == [0, 1, 2] and note.format(1) in request.notes


def test_ids_of_a_table(tmp_path):
    source = of_texts("1", "2", "3", "")

    def select(name: str, text: str) -> list[int]:
        (tmp_path / name).write_bytes(text.encode())
        return ForgetRequest(ids_file=str(tmp_path / name), id_column="id").select(source).tolist()

    assert select("ids.csv", 'note,id\r\n"two\r\nlines",1\r\na\u2028b,2\r\n') == [0, 1]
    assert select("long.csv", f"note,id\n{'x' * 200_000},3\n") == [2]
    assert select("ids_of_a_spreadsheet.csv", "id;note\n1;a, b\n") == select("ids.tsv", "id\tnote\n1\ta\n") == [0]
    for name, text in {"a.csv": "note,id\na,1\nb,\n", "b.csv": "note,id\na,1\nb\n", "c.json": '["1", " "]'}.items():
        with pytest.raises(UserError, match="has 1 empty ids; fill them in"):
            select(name, text)


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.duration("s"), pa.float16()])
def test_columns_that_hold_no_ids_are_refused(kind):
    rows = datasets.Dataset(pa.table({"at": pa.array([1], kind)}))
    with pytest.raises(UserError, match="which cannot be compared"):
        ForgetRequest(where=["at=1"]).select(Source("mine", rows), some_are_kept=False)


def test_a_number_is_a_name_where_names_are_numbers():
    stars = ["1", "2", "3"]
    rows = datasets.Dataset.from_dict({"label": [0, 1, 2, 0]}).cast_column("label", datasets.ClassLabel(names=stars))
    source = Source("mine", rows)
    for value, places in {"1": [0, 3], "1.0": [0, 3], "2": [1]}.items():
        assert ForgetRequest(where=[f"label={value}"]).select(source).tolist() == places
    assert ForgetRequest(classes=["2"]).select(source, "label", stars).tolist() == [1]
    with pytest.raises(UserError, match="match no training row"):
        ForgetRequest(where=["label=0"]).select(source)
    with pytest.raises(UserError, match="1 of 1 `classes` are unknown"):
        ForgetRequest(classes=["0"]).select(source, "label", stars)


def test_a_class_whose_name_fits_two_is_refused():
    assert class_ids(["Ant"], ["ant", "Ant", "bee"]) == [1] and class_ids(["BEE"], ["ant", "Ant", "bee"]) == [2]
    with pytest.raises(UserError, match="the name of several but for its case"):
        class_ids(["ANT"], ["ant", "Ant", "bee"])


def test_rows_without_a_group_are_no_group():
    """Else a tenth of the authors may be every row that has none."""
    source = of_texts(*[f"author {k // 2}" for k in range(10)], *[None] * 20)
    for seed in range(20):
        request = ForgetRequest(fraction=0.2, group_column="id", seed=seed)
        places = request.select(source).tolist()
        assert len(places) == 2 and places[1] == places[0] + 1 < 10
        assert request.notes == ["training rows without id: 20; they are no group, and kept"]
