"""Arguments of the commands that take those of `train`, with the same meaning, and a few of their own."""

import argparse
import sys
from typing import Any

from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.line_parser import LineParser, describe_negations
from hf_unlearn.run.parsing import parse_arguments


def parse_with_own(own_class: Any, command: str, argv: list[str] | None = None) -> tuple[Any, Arguments]:
    """Parse a command line that holds the fields of `own_class` (a dataclass), which YAML files do not hold, and any
    argument of `train`.

    Returns an instance of `own_class` and the [`Arguments`]. Raises `UserError` as [`parse_arguments`] does.
    """
    own, rest = own_and_rest(own_class, command, argv)
    return own, parse_arguments(rest)


def own_and_rest(own_class: Any, command: str, argv: list[str] | None = None) -> tuple[Any, list[str]]:
    """An instance of `own_class`, and what of the command line is not its own. Raises `UserError` for wrong values."""
    from transformers import HfArgumentParser

    class Parser(LineParser, HfArgumentParser):
        """Errors as one line instead of a page of usage."""

    parser = Parser(
        own_class,
        prog=f"hf-unlearn {command}",
        usage=f"hf-unlearn {command} [--config FILE] [--argument value ...]",
        description=own_class.__doc__,
        epilog="Model, data, request, recipe and method: every argument of `hf-unlearn train` (train --help-all).",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    describe_negations(parser)
    argv = sys.argv[1:] if argv is None else list(argv)
    values, rest = parser.parse_known_args(argv)
    return own_class(**vars(values)), rest
