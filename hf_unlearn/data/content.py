"""Hashes of what rows hold, however they were loaded: for duplicates, for the recipe cache, and for evidence."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from hf_unlearn.data.columns import is_image
from hf_unlearn.errors import RowError, UserError

BATCH = 512  # rows read at a time


def row_digests(rows, columns: Sequence[str] | None = None) -> list[bytes]:
    """One 16-byte hash per row of the values in `columns` (all by default, in alphabetical order).

    Images are hashed by their pixels, so that neither file format nor path matters; what was decoded before, to encode
    rows or for other digests, is not decoded again. Raises `RowError` with the row's place in `rows` if an image
    cannot be read.
    """
    columns = sorted(rows.column_names) if columns is None else list(columns)
    found: list[bytes] = []
    for start in range(0, len(rows), BATCH):
        places = range(start, min(start + BATCH, len(rows)))
        known = {name: images for name in columns if (images := _known(rows, name, places)) is not None}
        unknown = [name for name in columns if name not in known]
        batch: dict[str, list] = {}
        if unknown:
            batch = read_rows(rows.select_columns(unknown).with_format(None), places)
            remember_images(rows, batch, places)
        found += [_digest(row) for row in zip(*((known | batch)[name] for name in columns), strict=True)]
    return found


_images: "WeakKeyDictionary[Any, dict[str, dict[int, list]]]" = WeakKeyDictionary()  # by data set, column and place


def remember_images(rows, values: Mapping[str, list], places: Sequence[int]) -> None:
    """Keep what digests need of images that were decoded: a hash of their pixels. `values`: by column."""
    features = getattr(rows, "features", None) or {}
    for name in values:
        if name in features and is_image(features[name]):
            seen = _images.setdefault(rows, {}).setdefault(name, {})
            seen |= {at: _plain(image) for at, image in zip(places, values[name], strict=True) if at not in seen}


def images_of(rows) -> dict[str, dict[int, list]]:
    """What is kept of decoded images, by column and place."""
    return _images.get(rows, {})


def take_images(rows, found: dict[str, dict[int, list]]) -> None:
    """Keep what another process knows of images."""
    if found:
        _images.setdefault(rows, {}).update(found)


def _known(rows, name: str, places: Sequence[int]) -> list | None:
    """What digests need of the images in a column; `None` where it holds none, or some were not decoded yet."""
    seen = _images.get(rows, {}).get(name)
    return [seen[at] for at in places] if seen is not None and all(at in seen for at in places) else None


def data_fingerprint(rows) -> str:
    """Hash of all rows in order with their columns' names: the same for the same content, wherever it came from."""
    return hashlib.sha256(json.dumps(sorted(rows.column_names)).encode() + b"".join(row_digests(rows))).hexdigest()


def features_digest(rows) -> str:
    """Hash of encoded rows (a [`Rows`]) in order: what a model gets, whatever it was made from."""
    found = hashlib.sha256()
    for start in range(0, len(rows), BATCH):
        for features in rows.__getitems__(range(start, min(start + BATCH, len(rows)))):
            for name, value in sorted(features.items()):
                tensor = torch.as_tensor(value).contiguous()
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
                found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def forget_digest(rows, positions: np.ndarray, columns: Sequence[str] | None = None) -> str:
    """HMAC-SHA256 over the content of the forgotten rows, in whatever order, under this user's own key.

    With the key its owner can show which rows were meant; without it nobody can test a guess.
    """
    return rows_digest([rows.select(positions)], columns)


def rows_digest(parts: Sequence, columns: Sequence[str] | None = None) -> str:
    """HMAC-SHA256 under this user's key over the rows of several parts, in whatever order a part's rows are."""
    digests = [b"".join(sorted(row_digests(rows, columns))) for rows in parts]
    return hmac.new(user_key(), b"".join(digests), hashlib.sha256).hexdigest()


def key_name() -> str:
    """Tells one key from another, so that digests under different keys are not compared; says nothing of the key."""
    return hmac.new(user_key(), b"hf_unlearn key name", hashlib.sha256).hexdigest()[:16]


def user_key() -> bytes:
    """The 32 secret bytes in the user's state folder, made on first use and readable by the user only."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "hf_unlearn" / "key"
    try:
        if not path.exists():
            _create_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot keep a key in {path.parent} ({error.strerror}): set XDG_STATE_HOME") from error
    if len(key) != 32:
        raise UserError(f"the key {path} is damaged: restore it, or remove it to get another")
    return key


def _create_key(path: Path) -> None:
    """Several processes may come here at once: the first link wins, and nobody reads half a key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"key.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def read_rows(rows, positions: range) -> dict[str, list]:
    """Raw columns of rows that stand together. Raises `RowError` with the place in `rows` of the first bad one."""
    try:
        return rows[positions.start : positions.stop]
    except Exception as error:  # image decoders raise anything from OSError to SyntaxError
        for position in positions:
            try:
                rows[position]
            except Exception as cause:
                raise RowError(position, _unreadable(rows, position)) from cause
        raise error


def _unreadable(rows, position: int) -> str:
    """Why a row cannot be read: the name of its image's file, where it has one."""
    import datasets

    images = [name for name, feature in rows.features.items() if is_image(feature)]
    for name in images:
        found = rows.select([position]).cast_column(name, datasets.Image(decode=False))[0][name]
        if found and found.get("path"):
            return f"its image cannot be read ({Path(found['path']).name})"
    return "its image cannot be read" if images else "its content cannot be read"


def _digest(values: tuple) -> bytes:
    text = json.dumps(values, sort_keys=True, default=_plain, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _plain(value: Any) -> Any:
    """What JSON does not know: pixels and bytes as their hash, dates and the like as text."""
    if hasattr(value, "tobytes") and hasattr(value, "mode"):
        image = value.convert("RGBA") if value.mode == "P" else value
        return ["image", image.mode, *image.size, hashlib.sha256(image.tobytes()).hexdigest()]
    if isinstance(value, bytes):
        return ["bytes", hashlib.sha256(value).hexdigest()]
    return str(value)
