"""Held-out rows that are training rows too: what is measured on them says nothing of unseen data."""

from collections.abc import Sequence

from hf_unlearn.data.columns import may_repeat
from hf_unlearn.data.content import row_digests
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError

MOST = 0.5  # share of the validation rows that may not be training rows


def check_unseen(source: Source, columns: Sequence[str]) -> list[str]:
    """Count validation and test rows whose `columns` equal those of a training row.

    Returns a note for each split that has some. Raises `UserError` if most validation rows are training rows: the loss
    of unseen data cannot be measured on them.
    """
    held_out = {split: rows for split in ("validation", "test") if (rows := getattr(source, split))}
    places = may_repeat(source.train, columns, list(held_out.values()))
    train = source.train if len(places) == len(source.train) else source.train.select(places)
    seen, notes = set(row_digests(train, columns)), []
    for split, rows in held_out.items():
        copies = sum(digest in seen for digest in row_digests(rows, columns))
        if split == "validation" and copies > MOST * len(rows):
            raise UserError(
                f"{copies} of {len(rows)} validation rows are training rows, so they cannot show the loss of unseen "
                "data: name rows that the model was not trained on with `validation`, of files `validation_file`"
            )
        if copies:
            notes.append(f"{copies} of {len(rows)} {split} rows repeat training rows, so they are not unseen")
    return notes
