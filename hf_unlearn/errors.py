"""The ways a run ends early. All carry one line: what is wrong, where, and how to mend it."""


class UserError(Exception):
    """A mistake in the input: printed as one line on stderr, exit status 2, nothing written.

    Arguments stand in backquotes, as Python names them: "`learning_rate` is -1; give a number above 0". The command
    prints them with its dashes.
    """


def in_one_line(error: Exception, most: int = 300) -> str:
    """What a library says in an error: its first line that holds something, and the next one where that ends in a
    colon, without backquotes."""
    lines = [line.strip() for line in str(error).replace("`", "'").splitlines() if line.strip()]
    told = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return told[:most] or type(error).__name__


class RowError(UserError):
    """A row that cannot be read. `position` is its place in the source; it is shown on stderr and kept nowhere."""

    def __init__(self, position: int, reason: str):
        super().__init__(f"row {position}: {reason}")
        self.position = position
        self.reason = reason

    @classmethod
    def of_split(cls, position: int, reason: str, split: str, more: int = 0, line: str | None = None) -> "RowError":
        """With the split's name, how rows are counted, the line of the file, how many more are like it, and the
        mend."""
        others = f"; so have {more:,} more" if more else ""
        where = f"{split} rows, counted from 0{f'; {line}' if line else ''}"
        return cls(position, f"{reason}{others} ({where}): mend or leave out such rows")

    def __reduce__(self):
        return RowError, (self.position, self.reason)


class NonFiniteLossError(Exception):
    """The loss or its gradient stopped being a finite number. Every process raises it at the same step."""


class StoppedError(Exception):
    """Somebody stopped the run. `status` is the exit status that shells give to the signal."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
