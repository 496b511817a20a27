"""What a run trains on, when: phases, each with its streams, its steps and, where a method fixes it, its rate."""

from dataclasses import dataclass, replace

FORGET, RETAIN = "forget", "retain"
FILLER = "filler"  # a row that a micro-batch without rows forwards, and no loss sees


@dataclass(frozen=True)
class Phase:
    """A stretch of optimizer steps.

    Args:
        name: shown in the progress and in the logs.
        steps: optimizer steps.
        streams: which splits feed it. A split that is not named is not read; with none, batches are empty.
        learning_rate: rate at the phase's first step. `None` leaves the rate to the `TrainingArguments`.
        final_learning_rate: rate that would follow the last step, reached linearly. `None`: constant.
        rate_every: the rate changes every so many steps (1: every step).
        fresh_optimizer: whether momentum and the like of earlier phases are dropped.
        most_steps: steps that the phase may be prolonged to; `None`: it has `steps` for good.
    """

    name: str
    steps: int
    streams: tuple[str, ...] = (FORGET, RETAIN)
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    rate_every: int = 1
    fresh_optimizer: bool = False
    most_steps: int | None = None

    def rate(self, step: int) -> float | None:
        """Learning rate at step `step` of the phase, counted from 0."""
        if self.learning_rate is None or self.final_learning_rate is None:
            return self.learning_rate
        progress = step // self.rate_every * self.rate_every / self.steps
        return self.learning_rate + (self.final_learning_rate - self.learning_rate) * progress


class Schedule:
    """Phases laid end to end. Every question about a step is answered from its number alone, so resuming is exact.

    Args:
        phases: in order. The last may have `most_steps`.
        max_steps: if positive, cuts the last phases short, or lengthens the last one; then none is prolonged.

    Attributes:
        planned_steps (`int`): of the whole run, before it was prolonged.
        left_out (`list[str]`): names of phases of which `max_steps` leaves no step.
    """

    def __init__(self, phases: list[Phase], max_steps: int = -1):
        names = dict.fromkeys(phase.name for phase in phases if phase.steps > 0)
        if max_steps > 0:
            phases = _fit(phases, max_steps)
        self.phases = [phase for phase in phases if phase.steps > 0]
        if not self.phases:
            raise ValueError("a schedule needs at least one step")
        self.planned_steps = self.total_steps
        self.left_out = [name for name in names if name not in self.names]

    def prolong(self, total_steps: int) -> None:
        """Let the run have `total_steps`, by more steps of its last phase, as far as that may be."""
        last = self.phases[-1]
        steps = min(total_steps, self.most_steps) - (self.total_steps - last.steps)
        self.phases[-1] = replace(last, steps=steps)

    @property
    def most_steps(self) -> int:
        """Steps that the run may be prolonged to."""
        last = self.phases[-1]
        return self.total_steps - last.steps + max(last.steps, last.most_steps or 0)

    @property
    def total_steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def names(self) -> list[str]:
        """Names of the phases, each once, in order."""
        return list(dict.fromkeys(phase.name for phase in self.phases))

    @property
    def in_stages(self) -> bool:
        """Whether there are several phases and each does something of its own, rather than the same few in turn."""
        return len(self.phases) == len(self.names) > 1

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of optimizer step `step`, and the step's number within it. Past the end: the last phase."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], self.phases[-1].steps + step

    @property
    def fixes_rates(self) -> bool:
        return any(phase.learning_rate is not None for phase in self.phases)

    def stream_steps(self, step: int, stream: str) -> int:
        """How many of the first `step` steps read `stream`: where that stream stands. Past the end: as in the last
        phase."""
        seen = 0
        for phase in self.phases[:-1]:
            if stream in phase.streams:
                seen += min(step, phase.steps)
            step -= phase.steps
            if step <= 0:
                return seen
        return seen + (step if stream in self.phases[-1].streams else 0)


def _fit(phases: list[Phase], max_steps: int) -> list[Phase]:
    """`max_steps` cuts the last phases short, or lengthens the last one."""
    fitted, left = [], max_steps
    for i, phase in enumerate(phases):
        steps = left if i == len(phases) - 1 else min(phase.steps, left)
        fitted.append(replace(phase, steps=steps, most_steps=None))
        left -= steps
    return fitted
