"""A parser whose complaints are one line, like every other mistake in the input."""

import argparse

from hf_unlearn.errors import UserError


class LineParser(argparse.ArgumentParser):
    """Raises `UserError` where argparse would print its usage and leave."""

    def error(self, message: str):
        raise UserError(" ".join(message.split()))


def describe_negations(parser: argparse.ArgumentParser) -> None:
    """Give a text of its own to each `--no_…` of a flag that is on by itself; HfArgumentParser repeats the flag's."""
    for action in parser._actions:
        if action.option_strings and action.option_strings[0].startswith("--no_") and action.const is False:
            action.help = f"Switches --{action.dest} off."
