"""What a denoiser said about a batch of images: how much of the noise in them it did not find."""

from dataclasses import dataclass, field
from typing import Any

import torch

from hf_unlearn.errors import UserError
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_chunks import wide_type

MOST_LOG_ODDS = 30.0  # of an error of 1e-13, which no model has


@dataclass
class Noised:
    """Images with noise, and what was shown beside them, for `rows` draws.

    Args:
        images: `(rows, channels, height, width)`, x_t.
        timesteps: `(rows,)`, t.
        conditions: `(rows,)`, class ids, the one after the last class standing for none; or `(rows, tokens)`, prompts,
            of which the empty one stands for none.
    """

    images: torch.Tensor
    timesteps: torch.Tensor
    conditions: torch.Tensor

    def __getitem__(self, rows: slice) -> "Noised":
        return Noised(self.images[rows], self.timesteps[rows], self.conditions[rows])


def is_without(conditions: torch.Tensor, none: torch.Tensor | None) -> torch.Tensor:
    """Which rows are shown without their condition, `(rows,)` bool."""
    if none is None:
        return torch.zeros(len(conditions), dtype=torch.bool, device=conditions.device)
    return (conditions == none.to(conditions.device)).flatten(1).all(1) if conditions.dim() > 1 else conditions == none


@dataclass
class DenoisingPredictions(Predictions):
    """Predictions about `size` images, each with as many draws of timestep and noise as `counts` says.

    A draw's error is the mean over pixels of (ε − ε_θ(x_t, t, c))², and a row's loss its mean over draws: 0 where all
    noise is found, 1 where none is. In the words of the other tasks p = exp(−loss), so that log-odds, which attacks
    and targets are about, are −log(expm1(loss)). A denoiser states no distribution over labels: confidence is p, the
    two entropies are the loss, and of other labels nothing can be asked. `correct` is the share of the noise's
    variance that was found.

    Args:
        logits: `(draws, pixels)`, what the network said.
        labels: `(draws,)`, the images' classes.
        wanted: `(draws, pixels)`, what it should have said.
        noised: what it was shown.
    """

    wanted: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    noised: Noised = field(default_factory=lambda: Noised(*[torch.empty(0)] * 3))
    _errors: torch.Tensor | None = field(default=None, repr=False)

    @property
    def errors(self) -> torch.Tensor:
        """Mean squared error over pixels of each draw, `(draws,)`."""
        if self._errors is None or (self._wants_gradient and not self._errors.requires_grad):
            self._errors = self.errors_of(self.logits)
        return self._errors

    @property
    def errors_by_draw(self) -> torch.Tensor:
        """The same by row, `(size, draws)`; early timesteps come first where a row is scored."""
        return self.errors.view(self.size, -1)

    def errors_of(self, said: torch.Tensor) -> torch.Tensor:
        """The same had the network said something else, `(draws, pixels)`."""
        return (said.to(wide_type(said)) - self.wanted).square().mean(1)

    @property
    def loss(self) -> torch.Tensor:
        """Mean squared error of the noise, `(size,)`."""
        return self.example_mean(self.errors)

    @property
    def log_odds(self) -> torch.Tensor:
        """−log(expm1(loss)), `(size,)`."""
        return _log_odds(self.loss)

    @property
    def label_log_odds(self) -> torch.Tensor:
        """The same of each draw, `(draws,)`."""
        return _log_odds(self.errors)

    @property
    def correct(self) -> torch.Tensor:
        """Share of the noise's variance that was found, `(size,)`, in [0, 1]: 1 − loss, or 0."""
        return (1 - self.loss).clamp(min=0)

    @property
    def confidence(self) -> torch.Tensor:
        return torch.exp(-self.loss)

    @property
    def entropy(self) -> torch.Tensor:
        return self.loss

    @property
    def modified_entropy(self) -> torch.Tensor:
        return self.loss

    @property
    def label(self) -> torch.Tensor:
        """Class of each image, `(size,)`."""
        if self.example is None:
            return self.labels
        first = torch.tensor([0, *self.counts[:-1]], device=self.labels.device).cumsum(0)[: self.size]
        return self.labels[first]

    def losses_for(self, labels: torch.Tensor) -> torch.Tensor:
        raise _states_no_labels()

    def by_rows(self, figure) -> torch.Tensor:
        raise _states_no_labels()

    def split(self, first: int) -> tuple["DenoisingPredictions", "DenoisingPredictions"]:
        """The first `first` images, and the others."""
        counts = self.counts[:first], self.counts[first:]
        cut, halves = sum(counts[0]), []
        for rows, start, mine in ((slice(0, cut), 0, counts[0]), (slice(cut, None), first, counts[1])):
            owner = None if self.example is None else self.example[rows] - start
            parts: dict[str, Any] = {
                "wanted": self.wanted[rows],
                "noised": self.noised[rows],
                "_errors": self.errors[rows],
            }
            halves.append(DenoisingPredictions(self.logits[rows], self.labels[rows], len(mine), owner, mine, **parts))
        return halves[0], halves[1]


def _log_odds(loss: torch.Tensor) -> torch.Tensor:
    """−log(expm1(loss)), as loss + log(1 − e^−loss): an ascent makes errors whose e^loss float32 cannot hold."""
    return -(loss + torch.log(-torch.expm1(-loss))).clamp(min=-MOST_LOG_ODDS)


def _states_no_labels() -> UserError:
    return UserError("`method` asks how likely other labels are, and a denoiser says nothing of that; choose another")
