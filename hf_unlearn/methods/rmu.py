"""RMU: the hidden states of forget rows are steered to noise, those of retain rows are held where they were."""

from dataclasses import dataclass, field

import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.forget_retain import ForgetRetainConfig, ForgetRetainTrainer
from hf_unlearn.trainers.proxies import find_blocks
from hf_unlearn.trainers.split_output import SplitOutput

LAYER = 7  # as published for models of 32 layers; of smaller ones a third of the depth
STEERED_LAYERS = 3  # whose weights move: the layer and those below it


@dataclass
class RMUConfig(ForgetRetainConfig):
    """Arguments of [`RMUTrainer`].

    Args:
        layer: block whose output is steered, counted from 0; `None` is 7, or a third of the depth if that is less.
        steering: length c of the vector that forget rows are steered to.
        alpha: weight of the retain term.
    """

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    alpha: float = field(default=100.0, metadata={"help": "Weight of the retain term."})
    layer: int | None = field(
        default=None, metadata={"help": "Block whose output is steered (default: 7, or a third of the depth)."}
    )
    steering: float = field(default=20.0, metadata={"help": "Length of the vector that forget rows are steered to."})

    def __post_init__(self):
        super().__post_init__()
        self.need(positive=("steering",))
        if self.retain_term != "nll":
            raise UserError("`retain_term`: RMU holds hidden states, not predictions; leave it out")


class RMUTrainer(ForgetRetainTrainer):
    """RMU (Li et al. 2024, arXiv 2403.03218): L = mean‖h_f − c·u‖² + α·mean‖h_r − h⁰_r‖².

    h is the output of one block on a row's own tokens (causal LMs: the answer's), h⁰ the original's; u is drawn once
    from [0, 1) per dimension and normalised. Squares are means over dimensions, then over a row's tokens, then over
    rows. Only the down projections of the MLPs in that block and the two below it move, and with an adapter its parts
    up to that block; all else stays frozen in the model that is given back. h⁰ needs a copy of the weights that move,
    and one more forward.

    Example:

        config = RMUConfig(output_dir="unlearned", steering=20.0)
        RMUTrainer(model, config, splits, task).train()
    """

    config_class = RMUConfig
    args: RMUConfig
    method = "rmu"
    paper = {
        "title": "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
        "authors": "Li et al.",
        "year": "2024",
        "id": "arXiv:2403.03218",
    }

    def __init__(self, model, args: RMUConfig, splits, task, **kwargs):
        try:
            blocks, layers = find_blocks(unwrap(model))
        except ValueError as error:
            raise UserError(f"`method` rmu steers the output of a block: {error}") from None
        if args.layer is None:
            args.layer = min(LAYER, len(layers) // 3)
        if not 0 <= args.layer < len(layers):
            raise UserError(f"`layer` is {args.layer}; the model has blocks 0 to {len(layers) - 1}")
        self.steered = f"{blocks}.{args.layer}"
        free_only(model, movable(model, blocks, args.layer))
        super().__init__(model, args, splits, task, **kwargs)

    @property
    def asks_original(self) -> bool:
        return self.args.alpha > 0

    def hidden_layers(self) -> list[str]:
        return [self.steered]

    def prepare(self) -> dict[str, torch.Tensor]:
        size = unwrap(self.model).config.get_text_config().hidden_size
        u = torch.rand(size, generator=torch.Generator().manual_seed(self.args.seed))
        return {"direction": u / u.norm()}

    def forget_losses(self, forget: SplitOutput) -> torch.Tensor:
        hidden = forget.hidden[self.steered]
        target = self.args.steering * self.method_state["direction"].to(hidden)
        return row_mean((hidden - target).square().mean(-1), forget.mask)

    def retain_losses(self, retain: SplitOutput) -> torch.Tensor:
        away = retain.hidden[self.steered] - retain.original.hidden[self.steered]
        return row_mean(away.square().mean(-1), retain.mask)


def row_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` `(size, seq)` over each row's own positions, `(size,)`."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


def movable(model: nn.Module, blocks: str, layer: int) -> set[str]:
    """Names of the parameters that may move, in the model inside all wrappers. Raises `UserError` if there is none."""
    inner = unwrap(model)
    within = [f"{blocks}.{i}." for i in range(layer + 1)]
    if lora.is_peft(model):
        return {name for name, p in inner.named_parameters() if p.requires_grad and name.startswith(tuple(within))}
    size, found = inner.config.get_text_config().hidden_size, set()
    for name, module in inner.named_modules():
        weight = getattr(module, "weight", None)
        if not name.startswith(tuple(within[-STEERED_LAYERS:])) or weight is None or weight.dim() != 2:
            continue
        out, into = weight.shape if isinstance(module, nn.Linear) else weight.shape[::-1]  # Conv1D is transposed
        if out == size != into:
            found.add(f"{name}.weight")
    if not found:
        raise UserError(f"`method` rmu moves the down projections of MLPs, and {type(inner).__name__} has none")
    return found


def free_only(model: nn.Module, names: set[str]) -> None:
    """Freeze every other parameter."""
    inner = {id(p) for name, p in unwrap(model).named_parameters() if name in names}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in inner)
