import stat

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_unlearn.data import duplicates
from hf_unlearn.data.content import data_fingerprint, forget_digest, row_digests, user_key
from hf_unlearn.data.duplicates import exact_duplicates, near_duplicates
from hf_unlearn.errors import RowError, UserError


def images(*shades, form="PNG", folder=None):
    paths = []
    for i, shade in enumerate(shades):
        paths.append(str(folder / f"{form}{i}.{form.lower()}"))
        Image.fromarray(np.full((3, 3), shade, dtype=np.uint8)).save(paths[-1])
    return datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())


def test_pixels_count_and_not_the_file(tmp_path):
    png, bmp = images(1, 2, folder=tmp_path), images(1, 3, form="BMP", folder=tmp_path)
    assert row_digests(png)[0] == row_digests(bmp)[0] and row_digests(png)[1] != row_digests(bmp)[1]


def test_an_unreadable_image_is_named_by_its_place(tmp_path):
    rows = images(1, 2, 3, folder=tmp_path)
    (tmp_path / "PNG1.png").write_bytes(b"no image")
    with pytest.raises(RowError, match="row 1: its image cannot be read"):
        row_digests(rows)


def test_fingerprint_follows_content_order_and_names():
    rows = datasets.Dataset.from_dict({"a": ["x", "y"], "b": [[1], None]})
    same = datasets.Dataset.from_dict({"b": [None, [1]], "a": ["y", "x"]}).select([1, 0])
    assert data_fingerprint(rows) == data_fingerprint(same)
    assert data_fingerprint(rows) != data_fingerprint(rows.select([1, 0]))
    assert data_fingerprint(rows) != data_fingerprint(rows.rename_column("a", "c"))


def test_columns_do_not_run_into_each_other():
    first = datasets.Dataset.from_dict({"a": ["ab"], "b": ["c"]})
    second = datasets.Dataset.from_dict({"a": ["a"], "b": ["bc"]})
    assert row_digests(first) != row_digests(second)


def test_digest_needs_the_users_key(tmp_path, monkeypatch):
    rows = datasets.Dataset.from_dict({"a": ["x", "y", "z"]})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    digest = forget_digest(rows, np.array([0, 2]))
    assert digest == forget_digest(rows.select([2, 1, 0]), np.array([0, 2])) and len(digest) == 64
    assert digest != forget_digest(rows, np.array([0, 1]))
    key = tmp_path / "one" / "hf_unlearn" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and key.read_bytes() == user_key()
    assert [path.name for path in key.parent.iterdir()] == ["key"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "two"))
    assert digest != forget_digest(rows, np.array([0, 2]))


def test_a_damaged_or_impossible_key_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    user_key()
    (tmp_path / "hf_unlearn" / "key").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        user_key()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set XDG_STATE_HOME"):
        user_key()


def test_exact_duplicates_ignore_other_columns():
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "a", "c", "b", "a"], "label": [0, 1, 1, 0, 1, 0]})
    assert exact_duplicates(rows, ["text"], np.array([0, 4])).tolist() == [1, 2, 5]
    assert exact_duplicates(rows, ["text"], np.array([3])).tolist() == []


def test_near_duplicates_stand_out_from_unrelated_rows():
    rng = np.random.default_rng(0)
    forget, retain, unrelated = (rng.normal(size=(n, 16)) for n in (20, 3000, 100))
    retain[7] = 3 * forget[4] + 0.01 * rng.normal(size=16)  # the length of a vector does not matter
    retain[2500] = forget[5]
    found = near_duplicates(forget, retain, unrelated)
    assert found.positions.tolist() == [7, 2500] and found.count == 2 and 0.5 < found.threshold < 0.99
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    nearest = (unit(unrelated) @ unit(retain).T).max(axis=1)
    assert found.threshold == pytest.approx(np.quantile(nearest, 0.999), abs=1e-6)


def test_the_search_for_near_duplicates_grows_with_the_kept_rows_alone(monkeypatch):
    pairs, nearest = [], duplicates._nearest
    monkeypatch.setattr(duplicates, "MOST_UNRELATED", 64)
    monkeypatch.setattr(duplicates, "_nearest", lambda a, b: pairs.append(len(a) * len(b)) or nearest(a, b))
    rng = np.random.default_rng(0)
    for size in (200, 800):
        forget, retain, unrelated = (rng.normal(size=(n, 8)) for n in (5, size, size))
        retain[3] = forget[1]
        assert near_duplicates(forget, retain, unrelated).positions.tolist() == [3]
    assert pairs == [64 * 200, 5 * 200, 64 * 800, 5 * 800]


def test_exact_copies_count_even_if_unseen_rows_are_copies_too():
    rng = np.random.default_rng(0)
    retain = rng.normal(size=(50, 8))
    found = near_duplicates(retain[:3], retain, retain[10:20])
    assert found.positions.tolist() == [0, 1, 2]
    assert near_duplicates(retain[:3], retain, np.zeros((0, 8))).count == 0
