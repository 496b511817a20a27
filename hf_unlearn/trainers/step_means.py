"""Means over a whole optimizer step, however it is divided into micro-batches and processes."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

from hf_unlearn.trainers.part import TrainerPart
from hf_unlearn.trainers.schedule import FORGET
from hf_unlearn.trainers.split_output import SplitOutput


class StepMeans(TrainerPart):
    """Part of [`UnlearningTrainer`]: losses that are no mean of losses of single rows."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._step_batches: list[dict[str, Any]] = []
        self._step_means: dict[tuple[str, str], tuple[torch.Tensor, int]] = {}
        super().__init__(*args, **kwargs)

    def step_rows(self, stream: str) -> int:
        """The number of rows that a step's mean over `stream` is divided by."""
        raise NotImplementedError

    def _run(self, model: torch.nn.Module, batch: dict[str, Any], only_forget: bool = False) -> dict[str, SplitOutput]:
        raise NotImplementedError

    def of_step_mean(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        output: SplitOutput,
        values: "str | Callable[[SplitOutput], torch.Tensor]" = "loss",
    ) -> torch.Tensor:
        """`function(mean)` of the mean of `output.<values>` over the *whole* optimizer step: a scalar, exact gradient.
        `values` may also be a method that gives a number for each row of an output, `(size,)`, or several,
        `(size, figures)`: then `mean` is `(figures,)`.

        A function that is not linear does not commute with averaging over micro-batches and processes. Here the mean
        is taken first (one reduce over processes; with accumulation, a forward without gradient over the step's other
        micro-batches) and its derivative then weighs this micro-batch's gradient.
        """
        each = attrgetter(values) if isinstance(values, str) else values
        total, count = self._step_total(output, each, values if isinstance(values, str) else values.__name__)
        mean = (total / count).to(output.loss.dtype).requires_grad_()
        with torch.enable_grad():
            value = function(mean)
            (slope,) = torch.autograd.grad(value, mean)
        share = (slope * output.mean(each(output))).sum()
        weight = count / self.step_rows(output.stream)  # a smaller last batch counts for less
        return value.detach() * weight + share - share.detach()

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_batches, self._step_means = batches, {}
        return batches, items

    def _step_total(
        self, output: SplitOutput, each: Callable[[SplitOutput], torch.Tensor], name: str
    ) -> tuple[torch.Tensor, int]:
        """Sums and number of per-example values over the whole step, in float64, without gradient."""
        key = (output.stream, name)
        if key not in self._step_means:
            outputs = [output]
            if len(self._step_batches) > 1:
                # The first micro-batch is asked for the mean of all of them.
                with torch.no_grad():
                    later = [self._prepare_inputs(batch) for batch in self._step_batches[1:]]
                    runs = [self._run(self.model_wrapped, batch, output.stream == FORGET) for batch in later]
                outputs += [run[output.stream] for run in runs]
                self.count_examples(sum(len(o) for o in outputs[1:]) * self.args.world_size)
            total = torch.stack([each(o).detach().double().sum(0) for o in outputs]).sum(0)
            count = sum(len(o) for o in outputs)
            if self.args.world_size > 1:
                both = torch.cat([total.flatten(), total.new_tensor([count])])
                both = self.accelerator.reduce(both, reduction="sum")
                total, count = both[:-1].view_as(total), int(both[-1])
            self._step_means[key] = total, count
        return self._step_means[key]
