"""Retain rows that are not known by heart are held where the original left them, instead of being learned further."""

import numpy as np
import torch
import torch.nn.functional as F

from hf_unlearn.trainers.measuring import Measuring
from hf_unlearn.trainers.schedule import RETAIN
from hf_unlearn.trainers.split_output import SplitOutput, on_host

HELD, SHARE = "retain_losses", "hold_share"  # among the method's tensors
SOFT = 0.1  # nats; a row that is nearer to where it stood is pulled the less
BY_HEART = 0.1  # of the loss on unseen rows: retain rows below are known by heart, and nothing holds them


class Holding(Measuring):
    """Gives a trainer [`hold`], the loss of retain rows, also for models that were not trained to the end.

    Descent on the rest makes up for what the ascent breaks. It also goes on training: a model that saw its rows for
    three epochs only would come out with all rows better known than by any retrained twin, which stopped where the
    original did. So the less the retain rows' loss lies below that of unseen rows, the more each is held where it was,
    and never less than a method's `least_held`.
    """

    least_held = 0.0

    def settle_hold(self, known: float, unseen: float) -> None:
        """From the mean loss of retain rows and of unseen ones, in nats: how far the rest is held, ρ in [0, 1]."""
        share = min(1.0, known / max(unseen, 1e-8))
        self.method_state[SHARE] = torch.tensor(max(share if share >= BY_HEART else 0.0, self.least_held))

    def train(self, *args, **kwargs):
        output = super().train(*args, **kwargs)
        if HELD in self.method_state and self.hold_share > self.least_held:
            why = f"The model did not know its kept rows by heart: their loss is {self.hold_share:.0%} of unseen rows'"
            self.notes.append(f"{why}. In this measure they were held where they stood, not learned further.")
        return output

    @property
    def hold_share(self) -> float:
        """ρ; 0, which is descent, as long as nothing has settled it."""
        return on_host(self.method_state.get(SHARE, torch.zeros(())))

    def measure_retain(self, first: int, last: int) -> None:
        """Score the retain rows of the steps from `first` to before `last`, those that are not known yet. Rows that
        only a prolonged run reads are held where they stand when it is prolonged."""
        if not self.hold_share:
            return
        rows = self.splits.retain
        known = self.method_state.setdefault(HELD, torch.full((len(rows),), torch.nan))
        sampler = self._sampler()
        read = {int(row) for step in range(first, last) for row in sampler.rows(step).get(RETAIN, ())}
        asked = np.array([row for row in sorted(read) if torch.isnan(known[row])], dtype=np.int64)
        if len(asked):
            known[asked] = torch.tensor(self.score(rows.select(asked), self.model_wrapped).loss, dtype=known.dtype)

    def rows_of_retain(self) -> int:
        """What [`measure_retain`] reads before the planned steps, if the rest is held."""
        return min(len(self.splits.retain), self.rows_of_steps(RETAIN))

    def hold(self, retain: SplitOutput) -> torch.Tensor:
        """R = (1 − ρ)·L_r + ρ·mean_j[H(ℓ_j − ℓ_j⁰)] over the step's retain rows, a scalar: ℓ⁰ a row's loss before the
        first step, in nats, and H(d) = |d| − 0.05, within 0.1 nats d²/0.2. Above ℓ⁰ it is as steep as the loss."""
        share, loss = self.hold_share, retain.loss
        if share:
            away = F.huber_loss(loss, retain.own(self.method_state[HELD], loss), reduction="none", delta=SOFT) / SOFT
            loss = (1 - share) * loss + share * away
        return retain.mean(loss)
