"""Which rows have which labels, of an encoded column: one label per row, or lists of them."""

from collections.abc import Sequence

import numpy as np

from hf_unlearn.data.columns import label_ids
from hf_unlearn.data.label_sets import label_matrix
from hf_unlearn.tasks.label_sets import is_label_set


def has_sets(rows, label_column: str) -> bool:
    """Whether the column holds lists."""
    return is_label_set(rows.features.get(label_column))


def carries(rows, label_column: str, ids: Sequence[int]) -> np.ndarray:
    """`(rows,)` bool: rows that have one of the labels `ids`."""
    if has_sets(rows, label_column):
        return np.asarray(label_matrix(rows, label_column)[:, list(ids)].any(1))
    return np.isin(label_ids(rows, label_column), ids)


def emptied_labels(rows, label_column: str, gone: np.ndarray) -> np.ndarray:
    """Ids of labels that some row has, and none once the rows at the places `gone` are taken out; ascending."""
    if has_sets(rows, label_column):
        matrix = label_matrix(rows, label_column)
        return np.flatnonzero(matrix.any(0) & ~np.delete(matrix, gone, axis=0).any(0))
    labels = label_ids(rows, label_column)
    return np.setdiff1d(labels, np.delete(labels, gone))


def strata(rows, label_column: str) -> np.ndarray:
    """`(rows,)` codes in whose proportions rows are drawn: their labels, of lists a number for each set."""
    if has_sets(rows, label_column):
        return np.unique(label_matrix(rows, label_column), axis=0, return_inverse=True)[1].reshape(-1)
    return label_ids(rows, label_column)
