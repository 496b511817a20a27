"""Methods without training steps: the run is one step that reads no stream and edits the weights."""

from collections.abc import Iterator

import torch
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.saliency.shards import is_spread
from hf_unlearn.tasks.forward import eval_mode
from hf_unlearn.trainers.base import UnlearningTrainer
from hf_unlearn.trainers.schedule import Phase


class EditTrainer(UnlearningTrainer):
    """A method gives [`edit`]. Adapters, masks, checkpoints and the evidence are those of every method.

    Every process makes the same edit from the same rows.

    Example:

        class Halve(EditTrainer):
            method = "halve"

            def edit(self, model):
                for weight in self.trained().values():
                    weight.mul_(0.5)

        Halve(model, UnlearningConfig(output_dir="unlearned"), splits, task).train()
    """

    def edit(self, model: nn.Module) -> None:
        """Change the trainable weights of `model` in place. Under `torch.no_grad`."""
        raise NotImplementedError(f"{type(self).__name__} does not define edit")

    def phases(self) -> list[Phase]:
        return [Phase("edit", 1, streams=())]

    def prepare(self) -> dict[str, torch.Tensor]:
        if self.is_fsdp_enabled or is_spread(self.model):
            raise UserError(
                f"`method` {self.method} takes the gradient of single rows, which FSDP's shards do not give"
            )
        return {}

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that may be edited, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def row_gradients(self, rows: Rows) -> Iterator[list[torch.Tensor]]:
        """The gradient of each row's loss, one row at a time, in the order of [`trained`]; in eval mode."""
        model, weights = self.model, list(self.trained().values())
        self.count_examples(len(rows))
        with eval_mode(model):
            for i in range(len(rows)):
                batch = self._prepare_inputs(self.task.collate(rows.__getitems__([i])))
                with torch.enable_grad(), self.compute_loss_context_manager():
                    loss = self.task.predict(model, batch).loss.sum()
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                yield [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True)]

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        if self.state.global_step == 0 and self._first_of_step("edit"):
            with torch.no_grad():
                self._edit()
        return torch.zeros((), device=self.args.device)

    def _edit(self) -> None:
        weights = self.trained()
        before = {name: p.clone() for name, p in weights.items()} if self.active_lenses else {}
        self.edit(self.model)
        for name, value in before.items():
            for lens in self.active_lenses:
                weights[name].copy_(lens.allowed(name, value, weights[name]))
