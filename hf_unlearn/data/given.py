"""What is handed over in Python: rows in any of the usual forms, and in any of several ways which of them must go."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_unlearn.data.conditions import conditions_of
from hf_unlearn.data.content import row_digests
from hf_unlearn.data.prepare import Prepared, prepare
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.sources import BUILDERS, TEST_NAMES, VALIDATION_NAMES, Source, join_forget_retain, load_source
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import UserError
from hf_unlearn.tasks import get_task, task_for, task_names
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap

if TYPE_CHECKING:
    from torch import nn

GivenRows = Any  # datasets.Dataset | pandas.DataFrame | list[dict] | str | Path
NAME = "rows given in Python"
NO_RETAIN = (
    "no rows to keep: what pulls answers away from forgotten prompts pulls all answers with it, and only kept rows "
    "hold against that and say how much was lost; give some of the rows it was trained on, or a public set of "
    "instructions"
)
WAYS = (
    "a ForgetRequest, values of a column ({'customer_id': ['C-1042', …]}), places or a mask of training rows, a data "
    "set of them, a function of a row, names of classes, or a share such as 0.1"
)
TOLD = {  # how an error names what stands in forget=, longest first
    "with `classes`": "as classes, forget=['…']",
    "`classes` are": "classes of `forget` are",
    "`classes`": "`forget`",
    "`where`": "`forget`",
    "`fraction`": "`forget`",
}
Forget = ForgetRequest | Mapping[str, Any] | Sequence[int] | Sequence[str] | float | Callable[[dict], bool]


def rows_of(given: Any, name: str) -> Any:
    """A `datasets.Dataset` of a pandas table, of a list of dicts, or of a file; a data set as it is.

    Files are read as on the command line, where `007` is not `7`. Raises `UserError` for anything else.
    """
    import datasets

    if given is None or (hasattr(given, "column_names") and hasattr(given, "select_columns")):
        return given
    if isinstance(given, str | Path):
        return load_source(str(given)).train
    if _is_table(given):
        columns = list(given.columns)
        if twice := sorted({str(column) for column in columns if columns.count(column) > 1}):
            raise UserError(f"the {name} rows have two columns called '{twice[0]}'; rename one")
        return _by_columns(columns, name, lambda some: datasets.Dataset.from_pandas(given[some], preserve_index=False))
    if _are_dicts(given):
        keys = list(dict.fromkeys(key for row in given for key in row))
        return _by_columns(
            keys, name, lambda some: datasets.Dataset.from_dict({key: [row.get(key) for row in given] for key in some})
        )
    raise UserError(
        f"the {name} rows are {type(given).__name__}: give a datasets.Dataset, a pandas DataFrame, a list of dicts, "
        "or the name of a file"
    )


def are_rows(given: Any) -> bool:
    """Whether these are rows, in one of the forms that [`rows_of`] takes, rather than anything else."""
    if isinstance(given, str | Path):
        return Path(given).suffix.lower() in BUILDERS
    return _is_table(given) or _are_dicts(given) or isinstance(given, Mapping) or hasattr(given, "column_names")


def _is_table(given: Any) -> bool:
    return hasattr(given, "iloc") and hasattr(given, "columns")


def _are_dicts(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(row, Mapping) for row in given)


def _by_columns(columns: list, name: str, make: Callable[[list], Any]) -> Any:
    """What `make` makes of all columns. Raises `UserError` for one that it can make nothing of; its values, which
    pyarrow quotes, are in no message."""
    try:
        return make(columns)
    except (ValueError, TypeError, NotImplementedError, OverflowError):
        pass
    for column in columns:
        try:
            make([column])
        except (ValueError, TypeError, NotImplementedError, OverflowError):
            break
    raise UserError(
        f"column '{column}' of the {name} rows holds values of several kinds, or of one that no data set has: make "
        "them all text or all numbers; images go into a list of dicts"
    )


def source_of(dataset: Any, validation: Any = None, test: Any = None) -> Source:
    """The splits. Raises `UserError` where there are no training or no test rows."""
    if dataset is None:
        raise UserError(NO_RETAIN)
    name, notes = NAME, list[str]()
    if isinstance(dataset, str | Path):
        source = load_source(str(dataset))
        splits, name, notes = source.splits(), source.name, source.notes
    else:
        splits = dict(dataset) if isinstance(dataset, Mapping) else {"train": dataset}
    if "train" not in splits:
        raise UserError(f"the data set has no split 'train'; it has {', '.join(splits)}; give the training rows")

    def first(names):
        return next((splits[name] for name in names if name in splits), None)

    source = Source(
        name=name,
        train=rows_of(splits["train"], "training"),
        validation=rows_of(first(VALIDATION_NAMES) if validation is None else validation, "validation"),
        test=rows_of(first(TEST_NAMES) if test is None else test, "test"),
        notes=notes,
    )
    if source.test is None:
        raise UserError("no test rows: give some that the model was not trained on, with test=")
    return source


@contextmanager
def told_as_given(forget: Any) -> Iterator[None]:
    """Inside, what is wrong with a request is told by the name `forget`, unless that is a [`ForgetRequest`], whose
    fields have names of their own."""
    try:
        yield
    except UserError as error:
        told = str(error)
        for field, name in TOLD.items():
            told = told.replace(field, name)
        if isinstance(forget, ForgetRequest) or told == str(error):
            raise
        raise UserError(told) from None


def request_of(forget: Any, source: Source, seed: int) -> tuple[ForgetRequest, Source]:
    """The request that `forget` means, and the source; a data set of rows that are not among the training rows yet is
    put before them. Raises `UserError` where it means none."""
    rows = len(source.train)
    if isinstance(forget, ForgetRequest):
        return forget, source
    if isinstance(forget, float):
        return ForgetRequest(fraction=forget, seed=seed), source
    if isinstance(forget, Mapping):
        if not conditions_of(forget):
            named = ", ".join(f"'{column}'" for column in forget)
            said = f"has no value of {named}: nothing to forget" if named else f"takes {WAYS}"
            raise UserError(f"forget= {said}")
        return ForgetRequest(where=forget), source
    if hasattr(forget, "column_names") or _is_table(forget) or _are_dicts(forget):
        return _rows_themselves(rows_of(forget, "forget"), source)
    if hasattr(forget, "get_indexer"):
        raise UserError(
            "forget= is an index of a pandas table, and its labels are no places of rows once some were shuffled or "
            "left out: give a mask (table['customer_id'] == …), or the values by column"
        )
    if callable(forget):
        return ForgetRequest(rows=np.array([k for k, row in enumerate(source.train) if forget(row)], int)), source
    if str(getattr(forget, "dtype", "")) == "bool" and len(forget) == rows:
        return ForgetRequest(rows=np.flatnonzero(np.asarray(forget))), source
    given: list[Any] = [forget] if isinstance(forget, str) else list(forget) if isinstance(forget, Iterable) else []
    if given and all(isinstance(item, str) for item in given):
        return ForgetRequest(classes=given), source
    if not given or not all(isinstance(item, Integral) and not isinstance(item, bool) for item in given):
        raise UserError(f"forget= takes {WAYS}")
    if min(given) < 0 or max(given) >= rows:
        raise UserError(f"forget= names places that are not among the {rows} training rows, counted from 0")
    return ForgetRequest(rows=np.asarray(given, dtype=np.int64)), source


def _rows_themselves(forget: Any, source: Source) -> tuple[ForgetRequest, Source]:
    columns = sorted(source.train.column_names)
    if sorted(forget.column_names) == columns and len(forget):
        wanted, there = set(row_digests(forget, columns)), row_digests(source.train, columns)
        known = wanted & set(there)
        if known == wanted:
            return ForgetRequest(rows=np.flatnonzero([digest in wanted for digest in there])), source
        if known:
            raise UserError(
                f"{len(known)} of {len(wanted)} rows of forget= are among the training rows, and the others are not: "
                "give training rows that hold all of them, or none"
            )
    train, places = join_forget_retain(forget, source.train)
    return ForgetRequest(rows=places), replace(source, train=train)


def task_of(model: "nn.Module") -> type[Task]:
    """The task that a model's class is made for. Raises `UserError` where it is none that is known."""
    task = task_for(model)
    if task is None:
        name = type(unwrap(model)).__name__
        raise UserError(
            f"{name} belongs to no task that is known (a base without a head?); name one with task=: "
            f"{', '.join(task_names())}"
        )
    return task


def prepare_given(
    model: "nn.Module",
    source: Source,
    request: ForgetRequest,
    task_class: type[Task],
    make_task: Callable[[dict[str, str], list[str] | None], Task],
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    seed: int = 0,
    split_seed: int = 0,
    forget_duplicates: bool = False,
) -> Prepared:
    """[`prepare`] for a model that is there and was trained elsewhere."""
    config: Any = unwrap(model).config
    return prepare(
        source,
        request,
        task_class,
        make_task=make_task,
        settle_model=lambda made: made.prepare_model(model),
        trains_original=False,
        seed=seed,
        split_seed=split_seed,
        columns=columns,
        label2id=config.label2id if task_class.has_labels() else None,
        forget_duplicates=forget_duplicates,
    )


def prepare_rows(
    model: "nn.Module",
    processor: Any,
    source: Source,
    forget: Forget,
    *,
    task: str | type[Task] | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> Prepared:
    """[`prepare_given`] with the task that the model's class is made for, and a processor. Raises `UserError`."""
    task_class = get_task(task or task_of(model))

    def make_task(columns: dict[str, str], label_names: list[str] | None) -> Task:
        return task_class(processor, columns, label_names=label_names, max_length=max_length)

    with told_as_given(forget):
        request, source = request_of(forget, source, seed)
        return prepare_given(model, source, request, task_class, make_task, columns=columns, seed=seed)


def make_splits(
    model: "nn.Module",
    processor: Any,
    dataset: Any,
    *,
    forget: Forget,
    validation: Any = None,
    test: Any = None,
    **options: Any,
) -> tuple[UnlearningSplits, Task]:
    """Roles of rows and their task, for trainers and callbacks made by hand; nothing is trained.

        splits, task = make_splits(model, tokenizer, rows, forget={"customer_id": ["C-1042", "C-0077"]})
        trainer.add_callback(UnlearningEvalCallback(trainer, splits, task))
        NablaTauTrainer(model, NablaTauConfig("unlearned"), splits, task).train()

    Args:
        model, processor, dataset, forget, validation, test: as for [`unlearn`].
        options: `task`, `columns`, `max_length` as there, and `seed`.

    Raises `UserError` for whatever does not fit together.
    """
    prepared = prepare_rows(model, processor, source_of(dataset, validation, test), forget, **options)
    return prepared.splits, prepared.task
