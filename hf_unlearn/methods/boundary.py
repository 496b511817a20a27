"""Boundary unlearning: forget rows are learned as what lies nearest to them, or as a class that is then cut off."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import linear
from torch.optim.sgd import sgd

from hf_unlearn.errors import UserError
from hf_unlearn.models.fgsm import SignedStep, step_space
from hf_unlearn.models.noise import PIXELS
from hf_unlearn.tasks.forward import unwrap, without_data_parallel
from hf_unlearn.trainers.forget_only import ForgetOnlyConfig, ForgetOnlyTrainer
from hf_unlearn.trainers.published import SGD
from hf_unlearn.trainers.split_output import SplitOutput

RATE = 1e-5
MOMENTUM = 0.9
PAPER = {
    "title": "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary",
    "authors": "Chen et al.",
    "year": "2023",
    "id": "arXiv:2303.11570",
}


@dataclass
class BoundaryConfig(ForgetOnlyConfig):
    """What both forms share.

    Args:
        learning_rate: 1e-5 is published, for convolutional networks of the class-removal kind.
    """

    published: ClassVar[dict[str, Any]] = {**SGD, "weight_decay": 0.0, "disable_dropout": False}

    learning_rate: float = field(default=RATE, metadata={"help": "Learning rate: decides how far it forgets."})


class BoundaryTrainer(ForgetOnlyTrainer):
    """Boundary unlearning in its published form: SGD at 1e-5 with momentum 0.9, ten passes over the forget rows; no
    retain row is read."""

    config_class: ClassVar[type[BoundaryConfig]] = BoundaryConfig
    args: BoundaryConfig
    paper = PAPER

    def __init__(self, model, args: BoundaryConfig, splits, task, **kwargs):
        self.check_task(task)
        self.check_model(model)  # before anything is done
        super().__init__(model, args, splits, task, **kwargs)

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Raises `UserError` for a model on which the method has nothing to act."""

    @classmethod
    def check_task(cls, task) -> None:
        if not task.has_classes:
            raise UserError(
                f"`method` {cls.method} moves rows into another class, and the rows of {task.name} are not of one "
                "class each: use `method` grad_diff"
            )


@dataclass
class BoundaryShrinkConfig(BoundaryConfig):
    """Arguments of [`BoundaryShrinkTrainer`].

    Args:
        epsilon: length of the step on the inputs, as a share of their range, in (0, 1].
    """

    epsilon: float = field(default=0.1, metadata={"help": "Length of the step on the inputs, of their range."})

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.epsilon <= 1:
            raise UserError(f"`epsilon` is {self.epsilon}; it is a share in (0, 1]")


class BoundaryShrinkTrainer(BoundaryTrainer):
    """Boundary shrink (Chen et al. 2023, arXiv 2303.11570): descent on CE(y′) over the forget rows, y′ the class that
    the original sees in x + ε·sign(∂CE/∂x), ε 0.1.

    y′ is what the step leads to, as in the published code: where that is the row's own class, the row is confirmed
    rather than moved, and a note says how many were not. ε is a share of the range of the inputs ([`SignedStep`]): of
    pixels, from the darkest to the brightest in the forget rows, where 0.1 is published for [0, 1]; of texts, in each
    dimension of the token embeddings, for which nothing is published. Published code asks a frozen copy of the
    original at every step and rounds pixels to 256 levels; a row's class is the same each time, so here it is found
    once, and nothing is rounded.

    Example:

        config = BoundaryShrinkConfig(output_dir="unlearned", learning_rate=1e-4)
        BoundaryShrinkTrainer(model, config, splits, task).train()
    """

    config_class = BoundaryShrinkConfig
    args: BoundaryShrinkConfig
    method = "boundary_shrink"

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        step_space(model)

    def prepare(self) -> dict[str, torch.Tensor]:
        step = SignedStep(without_data_parallel(self.model_wrapped), self.task, self.args.epsilon)
        rows = self.splits.forget
        with self.compute_loss_context_manager():
            step.see(self._batches())
            nearest = torch.cat([step.classes(batch) for batch in self._batches()]).cpu()
        own = torch.cat([batch["labels"] for batch in self._batches()]).cpu()
        self.count_examples(_reads(step.space) * len(rows))
        found = int((nearest != own).sum())
        self.notes.append(f"The step on the inputs led {found:,} of {len(rows):,} forgotten rows into another class.")
        return {"nearest": nearest}

    def rows_beside_steps(self) -> int:
        return super().rows_beside_steps() + _reads(step_space(self.model)) * len(self.splits.forget)

    def _batches(self) -> Iterator[dict[str, Any]]:
        """The forget rows in order, collated, the same on every process."""
        rows, size = self.splits.forget, self.args.per_device_eval_batch_size
        for first in range(0, len(rows), size):
            part = range(first, min(first + size, len(rows)))
            yield self._prepare_inputs(self.task.collate(rows.__getitems__(part)))

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        return forget.loss_for(forget.own(self.method_state["nearest"], forget.index))


def _reads(space: str) -> int:
    """How often a row is read for its nearest class: the step and where it leads; embeddings are looked up first."""
    return 2 if space == PIXELS else 4


@dataclass
class BoundaryExpandingConfig(BoundaryConfig):
    """Arguments of [`BoundaryExpandingTrainer`]."""

    def __post_init__(self):
        super().__post_init__()
        if self.fp16:
            raise UserError(
                "`fp16`: the added logit has no scaled gradients; use `bf16` with `method` boundary_expanding"
            )


class BoundaryExpandingTrainer(BoundaryTrainer):
    """Boundary expanding (Chen et al. 2023, arXiv 2303.11570): a class is added to the K there are, the forget rows
    are learned as that class, L = mean CE(K + 1), and its logit is cut off.

    The added row of the output layer stands beside the model, so that nothing has to be cut, and checkpoints, adapters
    and masks are those of the K classes. It begins as a Xavier normal draw without a bias, and moves by SGD with
    momentum 0.9 at the run's rate, whatever the optimizer of the model is; its gradient is not clipped.

    Example:

        config = BoundaryExpandingConfig(output_dir="unlearned", learning_rate=1e-4)
        BoundaryExpandingTrainer(model, config, splits, task).train()
    """

    config_class = BoundaryExpandingConfig
    args: BoundaryExpandingConfig
    method = "boundary_expanding"

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        output_layer(model)

    def prepare(self) -> dict[str, torch.Tensor]:
        head = output_layer(self.model)
        row = torch.empty(1, head.in_features, dtype=self._wide_dtype())
        scale = (2 / (head.in_features + head.out_features + 1)) ** 0.5  # Xavier's, of the widened layer
        row.normal_(0, scale, generator=torch.Generator().manual_seed(self.args.seed))
        extra = torch.cat([row, row.new_zeros(1, 1)], 1)  # the bias last
        return {"extra": extra, "extra_momentum": torch.zeros_like(extra)}

    @property
    def extra(self) -> torch.Tensor:
        """The added row of the output layer, its bias last: `(1, hidden + 1)`, a leaf that gradients reach."""
        state = self.method_state
        if not state["extra"].requires_grad:  # as it was drawn, or read from a checkpoint
            state |= {name: state[name].to(self.args.device) for name in ("extra", "extra_momentum")}
            state["extra"].requires_grad_()
        return state["extra"]

    @contextmanager
    def widened(self) -> Iterator[None]:
        """Inside, the model has the added logit as its last."""
        extra = self.extra

        def widen(module, args, output):
            hidden = args[0]
            added = linear(hidden, extra[:, :-1].to(hidden.dtype), extra[0, -1:].to(hidden.dtype))
            return torch.cat([output, added.to(output.dtype)], -1)

        handle = output_layer(self.model).register_forward_hook(widen)
        try:
            yield
        finally:
            handle.remove()

    def _run(self, model, batch: dict[str, Any], only_forget: bool = False) -> dict[str, SplitOutput]:
        with self.widened():
            return super()._run(model, batch, only_forget)

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        return forget.loss_for(torch.full_like(forget.labels, forget.logits.shape[1] - 1))

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self._move_extra()
        return loss

    @torch.no_grad()
    def _move_extra(self) -> None:
        """Once a step, by the gradient at the weights before it."""
        extra = self.extra
        gradient, extra.grad = extra.grad, None
        assert gradient is not None  # every step has forget rows
        if self.args.world_size > 1:
            gradient = self.accelerator.reduce(gradient, reduction="mean")
        rate = self.optimizer.param_groups[0]["lr"]
        sgd(
            [extra], [gradient], [self.method_state["extra_momentum"]], weight_decay=self.args.weight_decay,
            momentum=MOMENTUM, lr=rate, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip


def output_layer(model: nn.Module) -> Any:
    """The layer that gives a classifier's logits, inside all wrappers but an adapter's own. Raises `UserError` where
    there is none, or several."""
    inner = unwrap(model)
    backbone = f"{inner.base_model_prefix}."
    found: dict[str, nn.Module] = {}
    for name, module in inner.named_modules():
        wide = getattr(module, "out_features", None) == inner.config.num_labels
        if wide and not name.startswith(backbone) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    if len(found) != 1:
        kind = type(inner).__name__
        raise UserError(
            f"`method` boundary_expanding widens a linear output layer, and {kind} has {len(found)}: use `method` "
            "boundary_shrink"
        )
    return next(iter(found.values()))
