"""Files of rows or ids and folders of models that are named and not there: told before anything heavy is imported."""

import sys
from pathlib import Path

from hf_unlearn.errors import UserError
from hf_unlearn.models.places import check_place
from hf_unlearn.run.config_file import read_config
from hf_unlearn.run.line_parser import LineParser
from hf_unlearn.run.parsing import without_overridden

FILES = ("train_file", "validation_file", "test_file", "forget_file", "retain_file", "forget_ids", "unseen_file")
DATA_SETS = ("dataset_name", "forget_dataset")
REFERENCES = "reference_model"  # several
MODELS = (
    "model_name_or_path",
    "processor_name_or_path",
    "base_model",
    "original_model",
    "unlearned_model",
    REFERENCES,
)


def check_named_places(argv: list[str] | None = None) -> None:
    """Raises `UserError` for the first that a command line, any other arguments included, or its `--config` names in
    vain; for one that cannot be read, too."""
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help", "--help-all"} & set(words):
        return
    parser = LineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    for name in (*FILES, *DATA_SETS, *MODELS):
        nargs = "+" if name == REFERENCES else None
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs=nargs)
    typed = vars(parser.parse_known_args(words)[0])
    config = typed.pop("config")
    values = without_overridden(read_config(config), words) if config else {}
    for name, value in typed.items():
        value = values.get(name) if value is None else value
        for place in value if isinstance(value, list) else [value]:
            if isinstance(place, str):  # what is none is refused where types are checked
                _check(name, place)


def _check(name: str, place: str) -> None:
    if name in MODELS:
        check_place(place)
    elif name in FILES and not (path := Path(place).expanduser()).is_file():
        raise UserError(
            f"`{name}`: {path} is a folder; name a file" if path.is_dir() else f"`{name}`: there is no file {path}"
        )
    elif name in DATA_SETS and not Path(place).expanduser().exists():
        from hf_unlearn.data.sources import check_not_local

        check_not_local(place)
