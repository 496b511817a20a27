"""Where rows come from: built-in data sets, the Hub, local files and folders."""

import importlib
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_unlearn.data.csv_text import check_metadata, text_options, with_numbers
from hf_unlearn.data.file_lines import line_of
from hf_unlearn.data.own_files import first_fault, mixed_as_text
from hf_unlearn.errors import RowError, UserError, in_one_line
from hf_unlearn.tasks import get_task

BUILTIN = ("digits", "docstrings", "fictitious_authors", "invented_authors")
BUILDERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
}
PACKED = (".gz", ".bz2", ".xz", ".zip")
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
TEST_NAMES = ("test",)


@dataclass
class Source:
    """Raw rows by split, before anything is encoded.

    Args:
        name: what evidence and model card call the data; for local files without the folders above them.
        train, validation, test (`datasets.Dataset`): the rows; `None` where there are none.
        builtin: whether it ships with this package.
        task: name of the task it is made for (built-in only).
        columns: the role each column plays (built-in only).
        group_column: column whose values must not be divided between splits, e.g. the author (built-in only).
        make_processor: makes a tokenizer or image processor for a model made from scratch (built-in only); a
            tokenizer is trained on validation and test rows, so that its vocabulary holds nothing of a training row.
        held_out: rows that were taken out of `train` for validation or test before anything was trained.
        places: for a split that is a part of a file's rows, each row's place in that file.
        notes: what its loading has to say, a line each, without any row's content.
        files: by split, where its rows are those of one local file.

    Raises `UserError` for streaming data sets.
    """

    name: str
    train: Any
    validation: Any = None
    test: Any = None
    builtin: bool = False
    task: str | None = None
    columns: dict[str, str] | None = None
    group_column: str | None = None
    make_processor: Callable[[], Any] | None = None
    held_out: Any = None
    places: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for split, rows in self.splits().items():
            if not (hasattr(rows, "column_names") and hasattr(rows, "select_columns") and hasattr(rows, "__len__")):
                raise UserError(f"{split} rows are streamed or no datasets.Dataset: load them with streaming=False")

    def __repr__(self) -> str:
        sizes = "".join(f", {name}={len(rows):,}" for name, rows in self.splits().items())
        return f"Source({self.name!r}{sizes})"

    def splits(self) -> dict[str, Any]:
        """The splits that exist, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in found.items() if rows is not None}

    def place(self, split: str, row: int) -> int:
        """Where row `row` of a split stands in the file it came from."""
        return int(self.places[split][row]) if split in self.places else int(row)

    def row_error(self, split: str, row: int, reason: str, more: int = 0) -> RowError:
        """What to raise for row `row` of a split, and `more` like it: with its place in the file it came from, and
        the line where that can be told."""
        return RowError.of_split(self.place(split, row), reason, split, more, self._line(split, int(row)))

    def _line(self, split: str, row: int) -> str | None:
        """Its own file's, or that of the file which the split was taken from."""
        import datasets

        rows, files = self.splits()[split], sorted(self.files.items(), key=lambda file: file[0] != split)
        plain = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Value)]
        for _, file in files:
            line = line_of(file, self.place(split, row), rows.select_columns(plain)[row])
            if line is not None:
                return f"line {line} of '{Path(file).name}'"
        return None


def load_source(
    dataset_name: str,
    *,
    config_name: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
    task: str | None = None,
) -> Source:
    """Load a data set.

    Args:
        dataset_name (`str`): a built-in source (one of `BUILTIN`), a local file (csv, json, jsonl, parquet, txt), a
            local folder (of images, of such files, or written by `save_to_disk`), or a Hub name.
        config_name (`str`, *optional*): the Hub data set's configuration.
        train_split, validation_split, test_split (`str`, *optional*): names of the splits. By default validation is
            the first of validation, valid, val and dev that exists, and test is `test`.
        seed (`int`): decides how built-in sources are divided, and what is invented for them.
        cache_dir (`str`, *optional*): cache folder of `datasets`.
        task (`str`, *optional*): the task it shall serve; built-in sources serve one.

    Raises `UserError` for a path or a split that does not exist, and for data that cannot be read.
    """
    if dataset_name in BUILTIN:
        source = importlib.import_module(f"hf_unlearn.data.builtin.{dataset_name}").load(seed)
        if task is not None and source.task not in (task, get_task(task).rows_of):
            raise UserError(f"`dataset_name`: '{dataset_name}' is made for the task {source.task}, not for {task}")
        named = {"dataset_config_name": config_name, "validation_split": validation_split, "test_split": test_split}
        named["train_split"] = None if train_split == "train" else train_split
        for argument in (argument for argument, value in named.items() if value is not None):
            raise UserError(f"`{argument}`: the splits of '{dataset_name}' are built in; leave it out")
        return source
    if not dataset_name.strip():
        raise UserError("`dataset_name` is empty; name a data set, a file or a folder")
    path = Path(dataset_name).expanduser()
    is_local, notes = path.exists(), list[str]()
    if is_local:
        splits = _read_local(path, config_name, cache_dir, notes)
    else:
        splits = _read_hub(dataset_name, config_name, cache_dir, notes)
    chosen = _choose_splits(list(splits), train_split, validation_split, test_split)
    rows = {role: splits[name] for role, name in chosen.items()}
    if len(rows["train"]) == 0:
        raise UserError(f"split '{chosen['train']}' of '{dataset_name}' has no rows")
    files = {"train": str(path)} if path.is_file() else {}
    return Source(name=path.resolve().name if is_local else dataset_name, notes=notes, files=files, **rows)


def load_files(train: str, validation: str | None = None, test: str | None = None) -> Source:
    """Rows of one's own files, a split each; of whatever kinds, packed with gzip or not.

    Raises `UserError` for a file that does not exist or cannot be read, and for two splits in one file.
    """
    given = {"train": train, "validation": validation, "test": test}
    files = {split: Path(name).expanduser() for split, name in given.items() if name is not None}
    for split, path in files.items():
        if not path.is_file():
            raise UserError(f"`{split}_file`: there is no file {path}")
    if len({path.resolve() for path in files.values()}) < len(files):
        raise UserError("`train_file`, `validation_file` and `test_file` must be different files")
    groups: dict[tuple[str, str | None], dict[str, str]] = {}  # files of a kind are read together, so that types agree
    for split, path in files.items():
        groups.setdefault(_kind_of(path), {})[split] = str(path)
    rows, notes = dict[str, Any](), list[str]()
    for (builder, separator), group in groups.items():
        options = {"sep": separator} if separator else {}
        shown = ", ".join(files[split].name for split in group)
        rows |= _read(shown, builder, notes=notes, data_files=group, **options)
    named = {split: str(path) for split, path in files.items()}
    return Source(name=files["train"].name, notes=notes, files=named, **rows)


def join_forget_retain(forget, retain) -> tuple[Any, np.ndarray]:
    """One training set from a forget data set and a retain data set of one's own.

    Returns the joined `datasets.Dataset` and the places of its forget rows. Raises `UserError` if their columns or the
    columns' types differ, or if one has no rows.
    """
    import datasets

    if not len(forget) or not len(retain):
        raise UserError(f"the {'retain' if len(forget) else 'forget'} data set has no rows")
    ours, theirs = set(forget.column_names), set(retain.column_names)
    if ours != theirs:
        raise UserError(
            "the forget and the retain data set must have the same columns: "
            f"only forget has {sorted(ours - theirs) or 'none'}, only retain has {sorted(theirs - ours) or 'none'}"
        )
    forget, retain = _agreeing(forget, retain), _agreeing(retain, forget)
    different = [name for name in sorted(ours) if forget.features[name] != retain.features[name]]
    if different:
        raise UserError(f"the forget and the retain data set hold different types in: {', '.join(different)}")
    train = datasets.concatenate_datasets([forget, retain.select_columns(forget.column_names)])
    return train, np.arange(len(forget))


def _agreeing(rows, other):
    """`rows` with one kind of text, which pandas has another of; with text where they hold whole numbers and `other`
    holds text, as of two files of which one has `007`; and with the other's type where they hold nothing."""
    import datasets

    text, number, nothing = (datasets.Value(kind) for kind in ("string", "int64", "null"))
    texts = (text, datasets.Value("large_string"))
    for name, feature in rows.features.items():
        theirs = other.features[name]
        if feature == texts[1] or (feature in (number, nothing) and theirs in texts):
            rows = rows.cast_column(name, text)
        elif feature == nothing:
            rows = rows.cast_column(name, theirs)
    return rows


def _read_local(path: Path, config_name: str | None, cache_dir: str | None, notes: list[str]) -> dict[str, Any]:
    """All splits of a local file or folder; what is to be said of them goes to `notes`."""
    import datasets

    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        with _readable(path.name):
            loaded = datasets.load_from_disk(str(path))
        return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if path.is_dir():
        return _read(path.name, str(path), config_name, notes=notes, cache_dir=cache_dir)
    builder, separator = _kind_of(path)
    options = {"sep": separator} if separator else {}
    return _read(path.name, builder, notes=notes, data_files={"train": str(path)}, cache_dir=cache_dir, **options)


def _kind_of(path: Path) -> tuple[str, str | None]:
    """The loader of a file, by the end of its name, and what separates its columns where that is no comma."""
    kind = next((suffix for suffix in path.suffixes[::-1] if suffix.lower() not in PACKED), "").lower()
    if kind not in BUILDERS:
        raise UserError(f"cannot read '{path.name}': known file types are {', '.join(BUILDERS)}")
    return BUILDERS[kind], "\t" if kind == ".tsv" else None


def _read_hub(name: str, config_name: str | None, cache_dir: str | None, notes: list[str]) -> dict[str, Any]:
    """All splits of a data set on the Hub; what is to be said of them goes to `notes`."""
    check_not_local(name)
    return _read(name, name, config_name, notes=notes, cache_dir=cache_dir)


def check_not_local(name: str) -> None:
    """Raises `UserError` for the name of a data set that can only be a path, of which nothing was found here."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix.lower() in BUILDERS
    if looks_local or "\\" in name or not name:
        raise UserError(f"there is no file or folder '{name}'")


def _read(shown: str, *where: str | None, notes: list[str], **options: Any) -> dict[str, Any]:
    """All splits, of csv files as text and what is surely numbers. `shown` is their name in messages."""
    import datasets
    from datasets.packaged_modules.csv.csv import CsvConfig
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilderConfig
    from datasets.packaged_modules.json.json import JsonConfig

    files: list[str] = []
    as_json = False
    with _readable(shown, lambda: first_fault(files, as_json=as_json)):
        config = datasets.load_dataset_builder(*where, **options).config
        as_json = isinstance(config, JsonConfig)
        if as_json or isinstance(config, CsvConfig):
            files += [name for names in config.data_files.values() for name in names]
        if isinstance(config, FolderBasedBuilderConfig):
            check_metadata([name for names in (config.data_files or {}).values() for name in names])
        if not isinstance(config, CsvConfig):
            splits = dict(datasets.load_dataset(*where, **options))
            return mixed_as_text(splits) if as_json else splits
        by_split = text_options(config.data_files, config.sep, notes)
        own = next(iter(by_split.values()))
        if all(each == own for each in by_split.values()):
            return with_numbers(dict(datasets.load_dataset(*where, **options | own)))
        found: dict[str, Any] = {}
        for split, of_split in by_split.items():
            files_of = {"data_files": {split: list(config.data_files[split])}}
            found |= datasets.load_dataset("csv", **options | files_of | of_split)
        return with_numbers(found)


@contextmanager
def _readable(name: str, find_fault: Callable[[], str | None] = lambda: None):
    """Turns what `datasets` raises into one line. The causes of its errors may quote rows, so they are left out;
    `find_fault` looks for the file and the line."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        yield
    except UserError:
        raise
    except (ConnectionError, DatasetNotFoundError) as error:
        mend = f"is neither a file nor built in ({', '.join(BUILTIN)}), and was not found on the Hub"
        raise UserError(f"`dataset_name`: '{name}' {mend}") from error
    except UnicodeDecodeError as error:
        raise UserError(find_fault() or f"'{name}' is not in UTF-8; save it in that encoding") from error
    except DatasetGenerationError as error:
        raise UserError(find_fault() or f"the rows of '{name}' cannot be read ({_cause(error)})") from error
    except Exception as error:  # loaders raise anything; their first line says what is missing
        if "corresponds to no data" in str(error) or isinstance(error, StopIteration):  # of a file without a byte
            raise UserError(f"'{name}' has no rows") from error
        raise UserError(f"'{name}' cannot be loaded: {in_one_line(error)}") from error


def _cause(error: Exception) -> str:
    """What `datasets` stumbled over: the kind of error, and of a csv file the line."""
    cause = error.__cause__ or error
    line = re.search(r"Expected \d+ fields in line \d+, saw \d+|EOF inside string", str(cause))
    if line is None:
        return type(cause).__name__
    mend = "close the quote" if line[0].startswith("EOF") else "quote cells that hold the separator"
    return f"{line[0]}: {mend}"


def _choose_splits(names: list[str], train: str, validation: str | None, test: str | None) -> dict[str, str]:
    """Which split plays which role; a guess never takes a split that was named for another role."""
    named = {"train": train, "validation": validation, "test": test}
    chosen = {role: name for role, name in named.items() if name is not None}
    for role, name in chosen.items():
        if name not in names:
            raise UserError(f"`{role}_split`: no split '{name}'; the splits are: {', '.join(names)}")
    if len(set(chosen.values())) < len(chosen):
        raise UserError("`train_split`, `validation_split` and `test_split` must be different splits")
    for role, guesses in (("validation", VALIDATION_NAMES), ("test", TEST_NAMES)):
        free = [name for name in guesses if name in names and name not in chosen.values()]
        if role not in chosen and free:
            chosen[role] = free[0]
    return chosen
