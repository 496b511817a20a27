"""∇τ for causal language models, variant tokens: the row says how much, its tokens say where."""

from collections.abc import Mapping

import torch

from hf_unlearn.trainers.config import KnownRecipe, default_learning_rate
from hf_unlearn.trainers.split_output import SplitOutput, on_host
from hf_unlearn.trainers.target_sources import Asking
from hf_unlearn.trainers.token_instead import kept
from hf_unlearn.trainers.token_targets import at_tokens, fit_targets

LEAST_STEPS = 32  # however few the rows; in 24 they come back sooner than rows that were never seen
VISITS = 6.0  # of each forget row, at least
WEIGHT = 0.6  # of the forget term beside that of the retain rows
LEAST_HELD = 0.5  # of the retain term: the steps read few kept rows more often than the recipe did
TRUSTED = 1.1  # times the model's loss on unseen rows; a source that reads them worse has no words to lend
RATE = 0.3  # of the recipe's peak learning rate
ADAPTER_RATE = 10.0  # a recipe's rate is for full weights; an adapter that starts at zero needs more


def fine_tuning_rate(model: torch.nn.Module, recipe: KnownRecipe | None) -> float:
    """The peak rate of a fine-tune: the recipe's, or from the model's width where no recipe is known."""
    return (recipe and recipe.rate_for(model, ADAPTER_RATE)) or 2 * default_learning_rate(model)


def measure(trainer: Asking) -> dict[str, torch.Tensor]:
    """The targets, from what the trainer's source says of validation and forget rows, and the model of the former; and
    what the source would say in the place of the forget rows' tokens, where it reads unseen rows as well as the model
    does."""
    model_seen, asked = trainer.calibrate(), trainer.ask()
    assert asked.validation.places is not None and asked.forget.places is not None
    places = (asked.validation.places, asked.forget.places)
    targets = fit_targets(model_seen.by_token, asked.validation.by_token, asked.forget.by_token, places)
    model_loss, source_loss = (said.by_token.mean_loss for said in (model_seen, asked.validation))
    if asked.forget.others is None or source_loss > TRUSTED * model_loss:
        return targets
    return targets | kept(asked.forget.others)


def pull(state: Mapping[str, torch.Tensor], forget: SplitOutput, higher: float = 0.0) -> torch.Tensor:
    """0.6·mean_i[a_i·mean_j(e_ij·φ_ij)], a scalar; see [`NablaTauTrainer`]. `state` is that of [`measure`]; all
    targets are `higher` by so much, in nats."""
    tokens = forget.predictions.label_log_odds - higher  # (tokens,)
    amount = (forget.log_odds.detach() - higher - at_rows(state, forget)) / on_host(state["spread"])  # (size,)
    place = (tokens.detach() - at_tokens(state, forget)) / on_host(state["token_spread"])  # (tokens,)
    side = torch.sign(amount)[forget.predictions.example]
    return WEIGHT * forget.mean(amount * forget.predictions.example_mean((side * place).clamp(0, 1) * tokens))


def at_rows(state: Mapping[str, torch.Tensor], forget: SplitOutput) -> torch.Tensor:
    """The targets of the micro-batch's rows, `(size,)`."""
    return forget.own(state["targets"], forget.log_odds)
