"""A parser whose complaints are one line, like every other mistake in the input."""

import argparse

from hf_unlearn.errors import UserError


class LineParser(argparse.ArgumentParser):
    """Raises `UserError` where argparse would print its usage and leave."""

    def error(self, message: str):
        raise UserError(" ".join(message.split()))
