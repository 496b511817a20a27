"""The forget term also where an attacker would stand: after steps that learn a few of the forgotten rows again."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.lens import GradientLens
from hf_unlearn.trainers.modes import set_training_mode
from hf_unlearn.trainers.part import TrainerPart
from hf_unlearn.trainers.random_streams import Stream, random_numbers
from hf_unlearn.trainers.schedule import FORGET
from hf_unlearn.trainers.split_output import SplitOutput, on_host

FROM = 1 / 3  # of the run: before, the rows are hardly pushed down, and an attack would find nothing to undo
UNTIL = 0.8  # of the run: after, the rows come back to their targets, below which looking ahead has pushed them
EPSILON = 1e-8  # Adam's
GAIN_ROWS = 128  # validation rows, at most, that say what an attack gives to unseen ones
GAIN = "ahead/gain"  # among the tensors of a checkpoint
SPREAD = "The weights are spread over processes"
FEW = "Hardly more rows are forgotten than a step reads"


class Attacked(TrainerPart):
    """What a trainer says to be looked ahead for."""

    @property
    def relearning_rate(self) -> float:
        """Of the attacker's steps: that of a fine-tune."""
        raise NotImplementedError

    @property
    def calibration_rows(self) -> Rows:
        """Unseen rows that say what an attack gives to rows that were never learned."""
        raise NotImplementedError

    def score(self, rows: Rows) -> SplitScores:
        """The rows under the current model; counted as examples."""
        raise NotImplementedError

    def forget_term(self, forget: SplitOutput, higher: float = 0.0) -> torch.Tensor:
        """The forget rows' part of the loss, a scalar, with targets that are `higher`, in nats of log-odds."""
        raise NotImplementedError


class Lookahead(GradientLens):
    """Adds to a step's gradient that of its forget term after K steps of relearning *other* forgotten rows.

    What pushes rows down together is one direction in the weights, and one step of fine-tuning on a few of the rows
    goes all the way back along it. So the rows B of a step are also asked to stand at their targets at θ_K,

        θ_0 = θ,   θ_{k+1} = θ_k − η·d/(|d| + 1e-8), d = ∇ℓ(θ_k; A_k),   g ← g + ∇L_f(θ_K; B),

    with ℓ the mean loss of as many other forget rows A_k, drawn anew, and η the peak rate of a fine-tune: each step is
    what Adam makes of a first gradient. There are fewer steps, or none, where no K + 1 times the rows of a step are
    forgotten. ∇L_f(θ_K) counts as a gradient at θ (first order, Finn et al. 2017, arXiv 1703.03400, section 5.2).
    The attack of a step is the same on all processes, and does not depend on how the step is divided.

    Rows that were never seen gain by such steps, too: they learn how answers are put. So the targets at θ_K are higher
    by what validation rows gain when others of them are learned, on average, before the first step.

    The steps after the first third and before the last fifth do that: rows are pushed somewhat below their targets by
    it, and the last steps lead them back. It costs a copy of the trained weights and of their gradient, and K + 1
    times the forget rows of such a step once more.

    Args:
        trainer ([`Attacked`]): whose steps look ahead.
    """

    trainer: Attacked

    @classmethod
    def is_asked(cls, args: UnlearningConfig) -> bool:
        return bool(getattr(args, "relearn_steps", 0))

    def __init__(self, trainer: Attacked):
        super().__init__(trainer)
        if not self.acts:
            trainer.notes.append(
                f"{SPREAD if self.is_spread else FEW}, so the run did not look ahead (relearn_steps): a few steps of "
                "fine-tuning on some of the forgotten rows may bring back the others."
            )

    @property
    def is_spread(self) -> bool:
        """Whether no process has whole weights and gradients between a step's backward passes and its update."""
        return self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled

    @property
    def acts(self) -> bool:
        return self.steps > 0 and not self.is_spread

    @property
    def steps(self) -> int:
        """K: as many as are asked for, but no row has to be learned twice for it."""
        rows, batch = len(self.trainer.splits.forget), self.trainer.stream_sizes()[FORGET].batch
        return min(self.trainer.args.relearn_steps, (rows - batch) // batch)  # type: ignore[attr-defined]

    def looks(self, step: int) -> bool:
        """Whether a step of the run looks ahead."""
        total = self.trainer.schedule.total_steps
        return self.acts and int(FROM * total) <= step < math.ceil(UNTIL * total)

    def plan(self) -> list[str]:
        few = "a step" if self.steps == 1 else f"{self.steps} steps"
        megabytes = sum(2 * p.numel() * p.element_size() for p in self._parameters()) / 2**20
        words = f"rows must also be forgotten after {few} that learn others of them again"
        return [f"{words} (a copy of what is trained and its gradient: {megabytes:,.0f} MB)"] if self.acts else []

    def rows_read(self) -> int:
        looks = [self.rows_of(step) for step in range(self.trainer.schedule.total_steps)]
        halves = self._halves() if self.acts else []
        measured = sum(2 * len(half) + sum(map(len, self._attacks_on(half))) for half in halves)
        return measured + sum(len(own) + sum(map(len, attacks)) for own, attacks in looks if attacks)

    def prepare(self) -> dict[str, torch.Tensor]:
        """What unseen rows gain by an attack on others, in nats of log-odds: each half of some validation rows is
        learned, the other is looked at."""
        if not self.acts:
            return {}
        trainer, halves = self.trainer, self._halves()
        set_training_mode(trainer.model, disable_dropout=trainer.args.disable_dropout)
        parameters, gains = self._parameters(), []
        for learned, watched in zip(halves, reversed(halves), strict=True):
            rows = trainer.calibration_rows.select(watched)
            before = trainer.score(rows).log_odds
            with _put_back(parameters):
                self._relearn(trainer.calibration_rows, self._attacks_on(learned))
                gains.append(trainer.score(rows).log_odds - before)
            trainer.count_examples(sum(map(len, self._attacks_on(learned))))
        return {GAIN: torch.tensor(max(0.0, float(np.concatenate(gains).mean())) if gains else 0.0)}

    def _halves(self) -> list[np.ndarray]:
        """Places of some validation rows, in two parts; no parts of a single row."""
        rows = len(self.trainer.calibration_rows)
        drawn = random_numbers(self.trainer.args.seed, Stream.RELEARNED_ROWS).permutation(rows)[:GAIN_ROWS]
        return [np.sort(half) for half in np.array_split(drawn, 2)] if rows > 1 else []

    def _attacks_on(self, places: np.ndarray) -> list[np.ndarray]:
        """These rows in turn, as many a step as the run forgets."""
        size = min(self.trainer.stream_sizes()[FORGET].batch, len(places))
        return [np.resize(np.roll(places, -k * size), size) for k in range(self.steps)]

    def rows_of(self, step: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """The forget rows of a step over all micro-batches and processes, and those of each of the attacker's steps,
        as many; no attacks where the step does not look ahead."""
        own = self.trainer._sampler().rows(step).get(FORGET, np.array([], dtype=np.int64))
        others = np.setdiff1d(np.arange(len(self.trainer.splits.forget)), own)
        if not self.looks(step):
            return own, []
        draws = (
            random_numbers(self.trainer.args.seed, Stream.RELEARNED_ROWS, step, k).permutation(others)
            for k in range(self.steps)
        )
        return own, [drawn[: len(own)] for drawn in draws]

    def change_gradients(self) -> None:
        trainer, rows = self.trainer, self.trainer.splits.forget
        own, attacks = self.rows_of(trainer.state.global_step)
        if not attacks:
            return
        parameters = self._parameters()
        mine = np.array_split(own, trainer.args.world_size)[trainer.args.process_index]
        higher = on_host(trainer.method_state[GAIN])
        with _put_back(parameters):
            self._relearn(rows, attacks)
            self._backward(rows, mine, len(own), lambda forget: trainer.forget_term(forget, higher))
            ahead = [p.grad for p in parameters]
        self._add(parameters, ahead)
        trainer.count_examples(sum(map(len, attacks)) + len(own))

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in self.trainer.model.parameters() if p.requires_grad]

    def _relearn(self, rows: Rows, attacks: list[np.ndarray]) -> None:
        """The attacker's steps, on the model itself."""
        parameters, rate, epsilon = self._parameters(), self.trainer.relearning_rate, EPSILON * self._scale
        for places in attacks:
            self._backward(rows, places, len(places), lambda output: output.mean(output.loss))
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad / (parameter.grad.abs() + epsilon), alpha=rate)
                    parameter.grad = None

    def _backward(self, rows: Rows, places: np.ndarray, size: int, term: Callable) -> None:
        """Add up the gradient of `term`, which takes means over `size` rows, in batches that fit the device."""
        trainer, scale = self.trainer, self._scale
        most = trainer.args.per_device_forget_batch_size
        for first in range(0, len(places), most):
            chosen = places[first : first + most].tolist()
            batch = trainer._prepare_inputs(trainer.task.collate(rows.__getitems__(chosen)))
            with trainer.compute_loss_context_manager():
                predictions = trainer.task.predict(trainer.model, batch)
                loss = term(SplitOutput(FORGET, predictions, torch.tensor(chosen), 1 / size, rows=chosen))
            (loss * scale).backward()

    @property
    def _scale(self) -> float:
        """What a loss scaler has enlarged the step's own gradient by."""
        scaler = getattr(self.trainer.accelerator, "scaler", None)
        return 1.0 if scaler is None else scaler.get_scale()

    def _add(self, parameters: Sequence[torch.nn.Parameter], ahead: Sequence[torch.Tensor | None]) -> None:
        """Onto the step's own gradient; each process has the part of its own rows."""
        trainer = self.trainer
        for parameter, gradient in zip(parameters, ahead, strict=True):
            if trainer.args.world_size > 1:
                gradient = torch.zeros_like(parameter) if gradient is None else gradient
                gradient = trainer.accelerator.reduce(gradient, reduction="sum")
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.add_(gradient)


@contextmanager
def _put_back(parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Inside, parameters may change and have no gradient yet; afterwards they have their own values and gradients."""
    before = [(p.detach().clone(), p.grad) for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, (value, gradient) in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = gradient
