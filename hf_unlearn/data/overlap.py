"""Held-out rows that are training rows too: what is measured on them says nothing of unseen data."""

from collections.abc import Sequence

from hf_unlearn.data.content import row_digests
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError

MOST = 0.5  # share of the validation rows that may not be training rows


def check_unseen(source: Source, columns: Sequence[str]) -> list[str]:
    """Count validation and test rows whose `columns` equal those of a training row.

    Returns a note for each split that has some. Raises `UserError` if most validation rows are training rows: the loss
    of unseen data cannot be measured on them.
    """
    seen = set(row_digests(source.train, columns))
    notes = []
    for split in ("validation", "test"):
        rows = getattr(source, split)
        if rows is None or len(rows) == 0:
            continue
        copies = sum(digest in seen for digest in row_digests(rows, columns))
        if split == "validation" and copies > MOST * len(rows):
            raise UserError(
                f"{copies} of {len(rows)} validation rows are training rows, so they cannot show the loss of unseen "
                "data: name rows that the model was not trained on with `validation`"
            )
        if copies:
            notes.append(f"{copies} of {len(rows)} {split} rows repeat training rows, so they are not unseen")
    return notes
