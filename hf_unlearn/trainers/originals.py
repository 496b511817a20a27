"""What a method may ask of the original without a second model: numbers per row, its predictions, where it started."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add, attrgetter
from typing import Any

import torch
from torch import nn

from hf_unlearn.data.rows import AnyRows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scoring import collect
from hf_unlearn.saliency.shards import is_spread
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import eval_mode, unwrap, without_data_parallel
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_parts import by_row
from hf_unlearn.trainers.part import TrainerPart

REFERENCE, START = "reference/", "start/"  # of the tensors among those of a checkpoint


@dataclass(frozen=True)
class ReferenceRows:
    """What the original said of some rows.

    Args:
        loss (`torch.Tensor`): `(size,)`, mean negative log-likelihood over a row's supervised tokens, in nats.
        tokens (`torch.Tensor`): `(size,)`, how many these are; 1 for classifiers.
    """

    loss: torch.Tensor
    tokens: torch.Tensor

    @property
    def log_prob(self) -> torch.Tensor:
        """`(size,)`, summed log-probability of a row's supervised tokens."""
        return -self.loss * self.tokens


@dataclass
class Pass:
    """One forward: predictions, and the outputs of the layers that were asked for.

    Args:
        hidden (`dict[str, torch.Tensor]`): `(size, seq, hidden)` by the layer's name.
        mask (`torch.Tensor`, *optional*): `(size, seq)` bool, a row's own positions ([`Task.token_mask`]).
    """

    predictions: Predictions
    hidden: dict[str, torch.Tensor]
    mask: torch.Tensor | None = None

    @classmethod
    def of(cls, task: Task, model: nn.Module, inputs: dict[str, torch.Tensor], layers: list[str]) -> "Pass":
        """Run `model` (wrapped or not) once on a collated batch."""
        with _watched(model, layers) as hidden:
            predictions = task.predict(model, inputs)
        mask = by_row(task.token_mask(inputs, hidden[layers[0]]), inputs) if layers else None
        return cls(predictions, {name: by_row(values, inputs) for name, values in hidden.items()}, mask)

    def split(self, first: int) -> list["Pass"]:
        """The first `first` examples, and the others."""
        halves = zip(self.predictions.split(first), (slice(0, first), slice(first, None)), strict=True)
        return [
            Pass(part, {k: v[rows] for k, v in self.hidden.items()}, None if self.mask is None else self.mask[rows])
            for part, rows in halves
        ]


class Originals(TrainerPart):
    """Part of [`UnlearningTrainer`]. What a method asks for is measured before the first step and kept in
    checkpoints.

    - [`reference_rows`]: two numbers for every row, from one scoring pass.
    - `keeps_start`: a copy of the trainable weights (of an adapter: of the adapter alone).
    - `asks_original`: predictions of the original for every micro-batch, as `SplitOutput.original`. It is the model
      itself with its starting weights: a copy of the trainable weights, and one more forward without gradient.
    - [`hidden_layers`]: outputs of layers, as `SplitOutput.hidden`.
    """

    keeps_start: bool = False

    @property
    def asks_original(self) -> bool:
        """Whether the loss needs `SplitOutput.original`; a method overrides it, by a class attribute too."""
        return False

    @property
    def reads_weights(self) -> bool:
        """Whether steps read the weights themselves, so that each process must have all of them."""
        return self.keeps_start or self.asks_original

    def reference_rows(self) -> Mapping[str, AnyRows]:
        """Rows for which [`reference`] is asked, by a name; the streams' names for the streams' rows."""
        return {}

    def hidden_layers(self) -> list[str]:
        """Names of modules, as the model inside all wrappers names them, whose outputs the loss needs."""
        return []

    def reference(self, name: str, index: torch.Tensor) -> ReferenceRows:
        """What the original said of the rows `index` `(size,)` of `reference_rows()[name]`."""
        device = self.args.device
        found = (self.method_state[f"{REFERENCE}{name}/{figure}"].to(device) for figure in ("loss", "tokens"))
        loss, tokens = (values[index.to(device)].to(self._wide_dtype()) for values in found)
        return ReferenceRows(loss, tokens)

    def predict_rows(self, rows: AnyRows, index: torch.Tensor) -> Predictions:
        """The current model's predictions, with gradient, for rows of the method's own: one more forward."""
        self.count_examples(len(index) * self.args.world_size)
        filled = index.tolist() or [0]  # every process runs a forward, as in `compute_loss`
        batch = self._prepare_inputs(self.task.collate(rows.__getitems__(filled)))
        return self.task.predict(self.model_wrapped, batch).split(len(index))[0]

    def start_distance(self) -> torch.Tensor:
        """‖θ − θ₀‖² over the trainable weights, a scalar; needs `keeps_start`."""
        start = self._start()
        return reduce(add, ((p - start[n]).square().sum() for n, p in self.model.named_parameters() if n in start))

    @contextmanager
    def original_weights(self) -> Iterator[nn.Module]:
        """Inside, the model has its starting weights. Use it without gradients; needs `keeps_start`."""
        start = self._start()
        parameters = {name: p for name, p in self.model.named_parameters() if name in start}
        now = {name: p.data for name, p in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = start[name]
            torch.clear_autocast_cache()  # it knows weights by their place
            yield self.model
        finally:
            for name, parameter in parameters.items():
                parameter.data = now[name]
            torch.clear_autocast_cache()

    def _ask_original(self, inputs: dict[str, Any], first: int, size: int) -> Sequence[Pass | None]:
        """The original's pass over a micro-batch of `size` rows (0: a filler), in eval mode and without gradient.
        `None` where nobody asks."""
        if not self.asks_original or not torch.is_grad_enabled():
            return [None, None]
        with torch.no_grad(), self.original_weights() as wrapped:
            model = without_data_parallel(wrapped)
            with eval_mode(model):
                return Pass.of(self.task, model, inputs, self.hidden_layers()).split(size)[0].split(first)

    def _measure_originals(self) -> dict[str, torch.Tensor]:
        """Everything that the method asks for, before the first step."""
        state: dict[str, torch.Tensor] = {}
        measures = {"loss": attrgetter("loss"), "tokens": attrgetter("token_count")}
        for name, rows in self.reference_rows().items():
            self.count_examples(len(rows))
            found = collect(self.model_wrapped, self.task, rows, measures, **self._scoring_options())
            state |= {f"{REFERENCE}{name}/{figure}": torch.tensor(values) for figure, values in found.items()}
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if self.reads_weights and (self.is_fsdp_enabled or is_spread(self.model)):
            raise UserError(f"`method` {self.method} reads whole weights, which FSDP would shard: take DDP")
        if self.keeps_start or self.asks_original:
            state |= {f"{START}{name}": p.detach().clone() for name, p in trainable.items()}
        return state

    def _start(self) -> dict[str, torch.Tensor]:
        """The trainable weights before the first step, by name, where the model is."""
        for key, value in self.method_state.items():
            if key.startswith(START) and value.device != self.args.device:
                self.method_state[key] = value.to(self.args.device)
        return {k.removeprefix(START): v for k, v in self.method_state.items() if k.startswith(START)}

    def _wide_dtype(self) -> torch.dtype:
        """Of losses: float64 for models in it, else float32."""
        return torch.float64 if next(self.model.parameters()).dtype == torch.float64 else torch.float32


@contextmanager
def _watched(model: nn.Module, layers: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, the outputs of these modules' last forward are kept, by name."""
    found: dict[str, torch.Tensor] = {}
    modules = dict(unwrap(model).named_modules()) if layers else {}

    def keeper(name: str):
        def keep(module, args, output):
            found[name] = output[0] if isinstance(output, tuple) else output

        return keep

    for name in layers:
        if name not in modules:
            raise UserError(f"the model has no layer '{name}'; its modules are named like {list(modules)[-1]}")
    handles = [modules[name].register_forward_hook(keeper(name)) for name in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
