"""How far a contest is as a whole, and about how long it still takes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hf_unlearn.progress import duration, say


class ContestProgress:
    """Says a line before each step: which of how many it is, and what the rest may take.

    A step that has been timed under another seed is reckoned to take as long again, any other as long as the mean of
    all; before the first step nothing is known, and nothing is said.

    Args:
        total: steps of the whole contest.
        left: names of the others, in their order.
    """

    def __init__(self, total: int, left: Sequence[str], clock: Callable[[], float] = time.perf_counter):
        self.total, self.left, self.clock = total, list(left), clock
        self.took: dict[str, list[float]] = {}

    @contextmanager
    def step(self, name: str, seed: int) -> Iterator[None]:
        """Around one step. `seed`: its number, as in the name of its folder."""
        left = self.seconds_left()
        number = self.total - len(self.left) + 1
        say(f"contest    {number} of {self.total}: seed_{seed}, {name}{_about(left)}")
        start = self.clock()
        yield
        self.took.setdefault(name, []).append(self.clock() - start)
        self.left.remove(name)

    def seconds_left(self) -> float | None:
        """For all steps that are not done; `None` before the first."""
        every = [seconds for of_name in self.took.values() for seconds in of_name]
        if not every:
            return None
        means = {name: sum(found) / len(found) for name, found in self.took.items()}
        return sum(means.get(name, sum(every) / len(every)) for name in self.left)


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f"; about {duration(seconds)} left"
