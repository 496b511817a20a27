"""Retain rows are held where the original left them, instead of being learned further."""

import numpy as np
import torch
import torch.nn.functional as F

from hf_unlearn.trainers.measuring import Measuring
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput

HELD = "retain_losses"  # among the method's tensors
SOFT = 0.1  # nats; a row that is nearer to where it stood is pulled the less


class Holding(Measuring):
    """Gives a trainer [`hold`], the loss of retain rows, for models that were not trained to the end.

    Descent on the rest makes up for what the ascent breaks. It also goes on training: a model that saw its rows for
    three epochs only would come out with all rows better known than by any retrained twin, which stopped where the
    original did. So the loss of each row that the steps will read is measured first, and held there from both sides.
    """

    def measure_retain(self, first: int, last: int) -> None:
        """Score the retain rows of the steps from `first` to before `last`, those that are not known yet."""
        rows = self.splits.retain
        known = self.method_state.setdefault(HELD, torch.full((len(rows),), torch.nan))
        sampler = self._sampler()
        read = {int(row) for step in range(first, last) for row in sampler.rows(step).get(RETAIN, ())}
        asked = np.array([row for row in sorted(read) if torch.isnan(known[row])], dtype=np.int64)
        if len(asked):
            known[asked] = torch.tensor(self.score(rows.select(asked), self.model_wrapped).loss, dtype=known.dtype)

    def rows_of_retain(self) -> int:
        """What [`measure_retain`] reads before the planned steps."""
        return min(len(self.splits.retain), self.rows_of_steps(RETAIN))

    def hold(self, retain: SplitOutput) -> torch.Tensor:
        """mean_j H(ℓ_j − ℓ_j⁰) over the step's retain rows, a scalar: ℓ⁰ a row's loss before the first step, in nats,
        and H(d) = |d| − 0.05, within 0.1 nats d²/0.2. Above ℓ⁰ it has the gradient of the loss itself."""
        start = retain.own(self.method_state[HELD], retain.loss)
        return retain.mean(F.huber_loss(retain.loss, start, reduction="none", delta=SOFT) / SOFT)
