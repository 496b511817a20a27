import datasets
import numpy as np
import pytest
from PIL import Image

from hf_unlearn.data.builtin import docstrings, fictitious_authors
from hf_unlearn.data.content import data_fingerprint, row_digests
from hf_unlearn.data.sources import BUILTIN, Source, join_forget_retain, load_source
from hf_unlearn.errors import UserError


@pytest.fixture(scope="module")
def builtin():
    return {name: load_source(name) for name in BUILTIN}


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def table(rows=6):
    return datasets.Dataset.from_dict(
        {"text": [f"row {i}" for i in range(rows)], "label": [i % 2 for i in range(rows)]}
    )


def test_digits_sizes_classes_and_images(builtin):
    source = builtin["digits"]
    assert [len(rows) for rows in source.splits().values()] == [1024, 280, 493]
    assert source.train.features["label"].names == [str(digit) for digit in range(10)]
    image = source.train[0]["image"]
    assert (image.mode, image.size) == ("L", (8, 8))
    pixels = source.make_processor()([image], return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 1, 8, 8)
    assert np.allclose(pixels[0, 0], np.asarray(image) / 127.5 - 1, atol=1e-6)
    for rows in source.splits().values():  # each digit is about a tenth of every split
        shares = np.bincount(rows["label"]) / len(rows)
        assert np.abs(shares - 0.1).max() < 0.01


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_sources_are_deterministic_and_their_splits_apart(builtin, name):
    source = builtin[name]
    again, other = load_source(name), load_source(name, seed=1)
    for split, rows in source.splits().items():
        assert data_fingerprint(rows) == data_fingerprint(getattr(again, split))
    if name != "invented_authors":  # a table, and the same for every seed
        assert data_fingerprint(source.train) != data_fingerprint(other.train)
        assert len(source.train) % 64 == 0
    inputs = [column for role, column in source.columns.items() if role != "label"]
    seen = set(row_digests(source.train, inputs))
    if name != "digits":  # scikit-learn's digits hold no copies either, but that is not ours to promise
        assert len(seen) == len(source.train)
        assert not seen & set(row_digests(source.validation, inputs) + row_digests(source.test, inputs))


def test_docstrings_are_sentences_of_eight_packages(builtin):
    source = builtin["docstrings"]
    assert source.train.features["label"].names == list(docstrings.PACKAGES)
    counts = np.bincount(source.train["label"], minlength=8)
    assert counts.min() > 50 and counts.max() < 2.5 * counts.min()
    assert all(text[0].isupper() and text[-1] in ".!?" for text in source.train["text"])


def test_sentences_leave_out_code_and_fragments():
    text = "Open the file and read it. Then close.\n\n>>> this is a session of code.\n\nargument: not a sentence"
    assert list(docstrings._sentences(text)) == ["Open the file and read it."]


def test_authors_are_in_one_split_only_and_named_in_every_question(builtin):
    source = builtin["fictitious_authors"]
    authors = [set(rows["author"]) for rows in source.splits().values()]
    assert [len(names) for names in authors] == [80, 16, 24]
    assert not (authors[0] & authors[1] or authors[0] & authors[2] or authors[1] & authors[2])
    assert all(row["author"] in row["question"] for row in source.train)
    assert len(source.train) == 80 * len(fictitious_authors.FACTS)


@pytest.mark.parametrize("name", ["docstrings", "fictitious_authors"])
def test_tokenizers_know_unseen_rows_only_and_reload(builtin, name, tmp_path):
    from transformers import AutoTokenizer

    source = builtin[name]
    tokenizer = source.make_processor()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = source.train[0][next(iter(source.columns.values()))]
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert again.pad_token_id == 0 and again.model_max_length == tokenizer.model_max_length
    unseen = " ".join(" ".join(map(str, row.values())) for rows in (source.validation, source.test) for row in rows)
    words = {token.lstrip("Ġ") for token in tokenizer.get_vocab() if token.lstrip("Ġ").isascii()}
    assert all(word in unseen for word in words if len(word) > 1 and word not in tokenizer.all_special_tokens)


def test_text_tokenizer_frames_texts_and_pairs_the_way_encoders_expect(builtin):
    tokenizer = builtin["docstrings"].make_processor()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = tokenizer("one", "two")["input_ids"]
    assert ids[0] == cls and ids[-1] == sep and ids.count(sep) == 2
    assert builtin["fictitious_authors"].make_processor()("one")["input_ids"][-1] != 1


def test_a_builtin_source_refuses_another_task():
    with pytest.raises(UserError, match="made for the task image_classification"):
        load_source("digits", task="causal_lm")


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "txt", "disk", "disk_dict", "folder"])
def test_local_files_and_folders(tmp_path, kind):
    rows, path = table(), tmp_path / f"mine.{kind}"
    if kind == "csv":
        rows.to_csv(path)
    elif kind == "json":
        rows.to_json(path, lines=False)
    elif kind == "jsonl":
        rows.to_json(path)
    elif kind == "parquet":
        rows.to_parquet(path)
    elif kind == "txt":
        path.write_text("\n".join(rows["text"]) + "\n")
    elif kind == "disk":
        rows.save_to_disk(path)
    elif kind == "disk_dict":
        datasets.DatasetDict(train=rows, valid=rows.select([0])).save_to_disk(path)
    else:
        path.mkdir()
        rows.to_csv(path / "train.csv")
        rows.select([1]).to_csv(path / "test.csv")
    source = load_source(str(path))
    assert source.train["text"][:] == rows["text"][:] and source.name == path.name
    assert (source.validation is not None) == (kind == "disk_dict") and (source.test is not None) == (kind == "folder")
    if kind != "txt":
        assert data_fingerprint(source.train) == data_fingerprint(rows)


def test_image_folder_is_the_same_data_as_its_parquet_copy(tmp_path):
    for label, shade in (("cat", 10), ("dog", 200)):
        folder = tmp_path / "images" / "train" / label
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((4, 4, 3), shade + i, dtype=np.uint8)).save(folder / f"{i}.png")
    source = load_source(str(tmp_path / "images"))
    assert source.train.features["label"].names == ["cat", "dog"]
    source.train.to_parquet(tmp_path / "copy.parquet")
    assert data_fingerprint(load_source(str(tmp_path / "copy.parquet")).train) == data_fingerprint(source.train)


def test_split_names_are_guessed_overridden_and_never_used_twice(tmp_path):
    rows = table()
    splits = {"train": rows, "dev": rows.select([0]), "val": rows.select([1, 2]), "test": rows.select([3])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    source = load_source(str(tmp_path / "all"))
    assert len(source.validation) == 2 and len(source.test) == 1
    source = load_source(str(tmp_path / "all"), test_split="val")
    assert len(source.validation) == 1 and len(source.test) == 2
    with pytest.raises(UserError, match="no split 'extra'; the splits are: train, dev, val, test"):
        load_source(str(tmp_path / "all"), validation_split="extra")
    with pytest.raises(UserError, match="different splits"):
        load_source(str(tmp_path / "all"), validation_split="test", test_split="test")


def test_unreadable_data_is_one_line_without_rows(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"secret": 1, oops')
    (tmp_path / "mine.xyz").write_text("a")
    (tmp_path / "empty").mkdir()
    for name, message in {
        tmp_path / "bad.jsonl": "line 1 of 'bad.jsonl' is not JSON; write one object a line",
        tmp_path / "mine.xyz": "known file types are .csv",
        tmp_path / "empty": "cannot be loaded",
        tmp_path / "absent": "no file or folder",
        "absent.csv": "no file or folder",
        "./absent": "no file or folder",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            load_source(str(name))
        assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_name_the_hub_does_not_know(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no such data set\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="'some-user/absent' is neither a file nor built in .* not found on the Hub$"):
        load_source("some-user/absent")


def test_streaming_is_refused():
    with pytest.raises(UserError, match="streaming=False"):
        Source("mine", table().to_iterable_dataset())


def test_forget_and_retain_data_sets_join():
    train, forget = join_forget_retain(table(2), table(5).select_columns(["label", "text"]))
    assert len(train) == 7 and forget.tolist() == [0, 1] and train["text"][2] == "row 0"
    with pytest.raises(UserError, match=r"only forget has \['label'\]"):
        join_forget_retain(table(2), table(5).remove_columns("label"))
    with pytest.raises(UserError, match="different types in: label"):
        join_forget_retain(table(2), table(5).cast_column("label", datasets.Value("float64")))
    with pytest.raises(UserError, match="forget data set has no rows"):
        join_forget_retain(table(0), table(5))
