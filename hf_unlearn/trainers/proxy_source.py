"""A source of targets that is trained: a proxy, cheap, on the retain rows, as the original was."""

import dataclasses
import tempfile

import torch

from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.models import lora
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.config import UnlearningConfig, default_learning_rate
from hf_unlearn.trainers.proxies import make_proxy, starts_clean
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.target_sources import Asked, Asking, TargetSource

ADAPTER_RATE = 12.0  # a recipe's rate is for full weights; an adapter that starts at zero needs more
USUAL_MOMENTUM = 0.9  # Adam's, for whatever is trained as models usually are
TOLD_APART = 0.05  # the AUC above one half from which a proxy is taken to remember, if three standard errors are less
PROXY_REMEMBERS = (
    "A proxy that keeps the model's lowest layers told forgotten rows from validation rows (AUC {auc:.1%}): they "
    "remember them, so one that keeps nothing was trained."
)
NO_BASE = "what the model was fine-tuned from is not named (--base_model, in Python base=): targets are better with it"


class Proxy(TargetSource):
    """A cheap model that is trained on the retain rows as the original was ([`make_proxy`]).

    It is a model of its own, or, where the model was given with an adapter, that model with another adapter in its
    place for the while. If a proxy that keeps the model's lowest layers tells forget rows from validation rows, these
    layers remember them, and one that keeps nothing takes its place.

    Args:
        haste: times the recipe's learning rate.
    """

    name = "proxy"

    def __init__(self, haste: float = 1.0):
        self.haste = haste

    def ask(self, trainer: Asking) -> Asked:
        model, seed = trainer.accelerator.unwrap_model(trainer.model), trainer.args.seed
        if lora.came_with_adapter(model):
            with lora.proxy_adapter(model, seed) as proxy:  # inside, `trainer.model` may be it
                return trainer.ask_model(train_proxy(trainer, proxy, self.haste))
        start = trainer.recipe.start if trainer.recipe else None
        if start is None:
            trainer.notes.append(f"{NO_BASE[0].upper()}{NO_BASE[1:]}.")
        untrained = make_proxy(model, seed, start)
        is_clean = starts_clean(model, unwrap(untrained) if start else None)
        asked = trainer.ask_model(train_proxy(trainer, untrained, self.haste))
        if is_clean or (auc := remembered(trainer, asked)) is None:
            return asked
        trainer.notes.append(PROXY_REMEMBERS.format(auc=auc))
        return trainer.ask_model(train_proxy(trainer, make_proxy(model, seed, start, keeps=False), self.haste))


def remembered(trainer: Asking, asked: Asked) -> float | None:
    """The AUC by which a source tells forget rows from validation rows; `None` where chance may do that."""
    forget = trainer.own_log_odds(asked.forget, trainer.splits.forget)
    found = loss_auc(-forget, -trainer.own_log_odds(asked.validation, trainer.calibration_rows))
    if found.value is None or found.value < 0.5 + max(TOLD_APART, 3 * (found.standard_error or 0.0)):
        return None
    return found.value


def train_proxy(trainer: Asking, proxy: torch.nn.Module, haste: float = 1.0) -> torch.nn.Module:
    """The proxy after its training on the retain rows; what that reads is counted on `trainer`."""
    args, recipe = trainer.args, trainer.recipe
    shared = {f.name for f in dataclasses.fields(UnlearningConfig) if f.init}
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(args) if f.name in shared}
    rate = (recipe and recipe.rate_for(proxy, ADAPTER_RATE)) or 2 * default_learning_rate(proxy)
    with tempfile.TemporaryDirectory() as scratch:
        values |= {
            "output_dir": scratch,
            "num_train_epochs": trainer.proxy_epochs,
            "max_steps": -1,
            "learning_rate": haste * rate,
            "disable_dropout": False,  # it is trained as a model is trained
            "adam_beta1": USUAL_MOMENTUM,
            "warmup_steps": 0.0,
            "eval_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
            "load_best_model_at_end": False,
            "push_to_hub": False,
            "saliency": None,  # a mask, patterns alone too, would be made from the forget rows
            "saliency_mask": None,
            "saliency_include": None,
            "saliency_exclude": None,
            "logging_strategy": "no",
        }
        training = RetainOnlyTrainer(proxy, UnlearningConfig(**values), trainer.splits, trainer.task, quiet=True)
        if trainer.side_progress is not None:
            training.add_callback(trainer.side_progress("training a proxy that never saw the forget rows"))
        training.train()
    trainer.count_examples(training.examples)
    return training.accelerator.unwrap_model(training.model)
