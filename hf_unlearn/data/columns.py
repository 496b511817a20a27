"""Reading single columns of a data set through Arrow: no Python object per value where Arrow can do it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_unlearn.errors import UserError


def require_column(dataset, column: str | None, what: str) -> None:
    """Raises `UserError` naming the columns that exist unless `column` is one of them."""
    if column not in dataset.column_names:
        found = f"no column '{column}'" if column else "no column given"
        raise UserError(f"{what}: {found}; the columns are: {', '.join(dataset.column_names)}")


def arrow_column(dataset, column: str) -> pa.ChunkedArray:
    """One column in row order, whether the data set is a selection of rows or not; other columns are not read."""
    return dataset.select_columns([column]).with_format("arrow")[:].column(column)


def column_codes(dataset, column: str, what: str = "column") -> np.ndarray:
    """`(rows,)` int64: the number of each row's value in order of first appearance, -1 for a missing value.

    Raises `UserError` for a missing column and for one that holds lists, dicts, or images.
    """
    require_column(dataset, column, what)
    values = arrow_column(dataset, column)
    if pa.types.is_nested(values.type) or isinstance(values.type, pa.BaseExtensionType):
        raise UserError(f"{what}: column '{column}' holds lists or records; name one of single values")
    encoded = pc.dictionary_encode(values.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    return np.asarray(encoded.indices.cast(pa.int64()).fill_null(-1))


def may_repeat(rows, columns: Sequence[str], others: Sequence) -> np.ndarray:
    """Places in `rows`, sorted, of those whose `columns` may equal those of a row of the data sets `others`.

    Columns of texts are compared, one by one; nothing is said of the rest. With a column of images these are all
    places: what was decoded of images is known of the whole data set alone.
    """
    found = np.ones(len(rows), dtype=bool)
    if not any(is_image(rows.features[column]) for column in columns):
        for column in columns:
            values, known = arrow_column(rows, column), [arrow_column(other, column) for other in others]
            if not all(holds_text(each.type) for each in (values, *known)):
                continue
            chunks = [chunk for each in known for chunk in each.cast(values.type).chunks]
            found &= np.asarray(pc.is_in(values, value_set=pa.chunked_array(chunks, values.type)))
    return np.flatnonzero(found)


def holds_text(kind) -> bool:
    """Whether an Arrow type is text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def label_ids(rows, label_column: str) -> np.ndarray:
    """`(rows,)` int64 label ids of an encoded label column."""
    require_column(rows, label_column, "`label_column`")
    return np.asarray(arrow_column(rows, label_column)).astype(np.int64)


def is_image(feature) -> bool:
    """Whether a feature of a data set is an image column."""
    import datasets

    return isinstance(feature, datasets.Image)
