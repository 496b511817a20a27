"""From a command line, and a YAML file of defaults, to the arguments of a run."""

import os
import sys
from argparse import Namespace
from dataclasses import field, fields, make_dataclass
from typing import Any

from hf_unlearn.errors import UserError, in_one_line
from hf_unlearn.exits import nearest
from hf_unlearn.run.arguments import GROUPS, REQUESTS, Arguments, DataArguments, RunArguments
from hf_unlearn.run.config_file import read_config, set_defaults
from hf_unlearn.run.line_parser import LineParser, describe_negations
from hf_unlearn.run.short_help import short_help

PLACES = (
    "model_name_or_path",
    "processor_name_or_path",
    "base_model",
    "original_model",
    "reference_model",
    "cache_dir",
    "resume_from_checkpoint",
    "saliency_mask",
)
BESIDE_REQUEST = ("group_column", "id_column")  # belong to one kind of request
OTHER_ROWS = {  # ways to name rows, and what each takes the place of
    "dataset_name": ("train_file", "validation_file", "test_file", "retain_file"),
    "train_file": ("dataset_name", "dataset_config_name", "validation_split", "test_split", "retain_file"),
    "retain_file": ("dataset_name", "dataset_config_name", "validation_split", "test_split", "train_file"),
}


def parse_arguments(argv: list[str] | None = None, *, values: dict[str, Any] | None = None) -> Arguments:
    """Parse a command line.

    Args:
        values: keys and values in place of what the file of `--config` holds.

    Raises:
        `UserError`: an unknown key (the nearest known one is named), a value of the wrong type, out of its range or
            that `TrainingArguments` refuses, an unreadable file.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(argv):  # before anything heavy is imported
        print(short_help(GROUPS))
        raise SystemExit(0)

    from hf_unlearn.methods import get_method

    first = LineParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--method")
    first.add_argument("--task")
    early, _ = first.parse_known_args(argv)
    if values is None:
        values = read_config(early.config) if early.config else {}
    method = get_method(str(early.method or values.get("method") or RunArguments.method))

    task = early.task or values.get("task")
    data_arguments = _data_arguments(task and str(task))
    parser = _build_parser(method.config_class, data_arguments)
    if values:
        set_defaults(parser, without_overridden(values, argv), early.config or "the given values")
    namespace, rest = parser.parse_known_args(argv)
    known = {action.dest for action in parser._actions}
    for word in rest:
        if word.startswith("--"):
            key = word[2:].split("=")[0].replace("-", "_")
            raise UserError(f"unknown argument --{key}{nearest(key, known, '--')}")
    if rest:
        files = [f"say --config {word}" for word in rest if word.endswith((".yaml", ".yml"))]
        raise UserError(f"a value follows no argument; {[*files, 'put the name of an argument before it'][0]}")
    return _arguments(namespace, data_arguments, method.config_class)


def _arguments(namespace: Namespace, data_arguments: type, config_class: type) -> Arguments:
    """The groups, filled from parsed values. Raises `UserError` for values that make no sense."""
    from hf_unlearn.trainers.ranges import check_ranges

    check_ranges(vars(namespace))
    for name in PLACES:  # a file's ~ is no shell's, and reaches us as it is
        setattr(namespace, name, _at_home(getattr(namespace, name, None)))

    def fill(group: type):
        return group(**{f.name: getattr(namespace, f.name) for f in fields(group) if f.init})

    run, model, data, request, lora, recipe = (
        fill(data_arguments if group is DataArguments else group) for group in GROUPS
    )
    try:
        trainer = fill(config_class)
    except (ValueError, TypeError, ImportError, OSError, AttributeError, KeyError) as error:  # from TrainingArguments
        raise UserError(f"the arguments are refused by transformers: {in_one_line(error)}") from None
    return Arguments(run, model, data, request, lora, recipe, trainer)


def _at_home(place: Any) -> Any:
    """A path, or a list of paths, with the user's folder in the place of its ~."""
    if isinstance(place, list):
        return [_at_home(each) for each in place]
    return os.path.expanduser(place) if isinstance(place, str) else place


def without_overridden(values: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """The values of a file; its request, and its rows, only where the command line has no others."""
    named = {word[2:].split("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    gone = {other for way in named & set(OTHER_ROWS) for other in OTHER_ROWS[way]}
    if named & set(REQUESTS):
        gone |= set(REQUESTS + BESIDE_REQUEST)
    return {key: value for key, value in values.items() if key not in gone}


def _data_arguments(task: str | None) -> type[DataArguments]:
    """`DataArguments`, with a `--<role>_column` for each role of the task that has none there."""
    from hf_unlearn.tasks import get_task

    known = {f.name for f in fields(DataArguments)}
    roles = [role for role in get_task(task).roles if f"{role}_column" not in known] if task else []
    more = [
        (f"{role}_column", str | None, field(default=None, metadata={"help": f"Column with the {role}."}))
        for role in roles
    ]
    return make_dataclass("DataArguments", more, bases=(DataArguments,)) if more else DataArguments


def _build_parser(config_class, data_arguments):
    from transformers import HfArgumentParser

    class Parser(LineParser, HfArgumentParser):
        """Errors as one line instead of a page of usage."""

    groups: list[Any] = [data_arguments if group is DataArguments else group for group in GROUPS]
    taken = {f.name for group in groups for f in fields(group)}
    clash = [f.name for f in fields(config_class) if f.name in taken]
    if clash:
        raise UserError(f"{config_class.__name__} has a field '{clash[0]}', an argument of every run; rename it")
    parser = Parser(
        (*groups, config_class),
        prog="hf-unlearn train",
        usage="hf-unlearn train [--config FILE] [--argument value ...]",
        description="Values of the YAML file are defaults; the command line overrides them. Defaults of the training "
        f"arguments, at the end, are those of {config_class.__name__}.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--help-all", action="help", help="Show this and leave; --help shows what most runs take.")
    describe_negations(parser)
    for action in parser._actions:
        if action.dest == "report_to":  # several trackers; HfArgumentParser sees a single string
            action.nargs = "+"
    return parser
