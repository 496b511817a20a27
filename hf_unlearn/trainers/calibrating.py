"""How unseen rows stand under the model, which translates what a source says into targets."""

from functools import cached_property

import numpy as np

from hf_unlearn.data.rows import Rows
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.target_sources import Asked, Asking, Said, TargetSource

MOST_CALIBRATION = 2048  # validation rows that translate; more move no quantile by what matters


class Calibrating(Asking):
    """Gives a trainer the validation rows that translate, and what the model and a source say of them."""

    source: TargetSource | None = None  # instead of the one that the recipe suggests
    _calibrated: tuple[int, Said] | None = None

    def target_source(self) -> TargetSource:
        """What is asked where nobody names a source."""
        raise NotImplementedError

    @cached_property
    def calibration_rows(self) -> Rows:
        """Validation rows that are scored to measure τ and the targets: all that are for that, or a seeded sample."""
        rows = self.splits.measuring
        if len(rows) <= MOST_CALIBRATION:
            return rows
        chosen = random_numbers(self.args.seed, Stream.CALIBRATION_ROWS).permutation(len(rows))[:MOST_CALIBRATION]
        return rows.select(np.sort(chosen))

    def calibrate_anew(self) -> None:
        """Forget what an earlier training saw."""
        self._calibrated = None

    def calibrate(self) -> Said:
        """What the model says of the calibration rows; looked at once a step."""
        step = self.state.global_step
        if self._calibrated is None or self._calibrated[0] != step:
            self._calibrated = (step, self.look(self.calibration_rows, self.model_wrapped))
        return self._calibrated[1]

    def ask(self) -> Asked:
        """What the source says; a note tells how well that goes with the model, and how far all targets may be off."""
        source = self.source or self.target_source()
        asked = source.ask(self)
        together, rows = self.agreement(asked), self.calibration_rows
        words = f"on {len(rows)} validation rows its log-odds go with the model's at r = {together:.2f}"
        if not self.splits.forgotten_classes:  # targets of removed classes do not come from rows' own labels
            spread = self.own_log_odds(self.calibrate(), rows).std()
            level = 1.96 * spread * ((1 - together**2) / len(rows)) ** 0.5
            words += f", so that the level of all targets together is known to ± {level:.2g} nats"
        self.notes.append(f"Targets come from a {source.name} that never saw the forgotten rows; {words}.")
        return asked
