"""What a trainer measures beside its steps: scoring passes, their logs, and what they cost."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import AnyRows, Rows
from hf_unlearn.data.scored_rows import scored_rows
from hf_unlearn.evaluation.metrics import evaluation_metrics
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.scoring import collect, score
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.part import TrainerPart
from hf_unlearn.trainers.schedule import FORGET


class Measuring(TrainerPart):
    """Part of [`UnlearningTrainer`]: `evaluate` is the scoring pass, and examples read on the side are counted."""

    def score(self, rows: Rows, model: torch.nn.Module | None = None) -> SplitScores:
        """Score rows under the current (or another) model in eval mode; counted as examples."""
        self.count_examples(len(rows))
        return self._score(rows, model)

    def count_examples(self, n: int) -> None:
        """Add examples that were read outside the training steps to the cost."""
        before = self.method_state.get("side_examples", torch.zeros((), dtype=torch.int64))
        self.method_state["side_examples"] = before + int(n)

    def rows_of_steps(self, stream: str | None = None) -> int:
        """Rows that the planned steps read, of one stream or of all."""
        steps, sizes = self.schedule.total_steps, self.stream_sizes()
        return sum(
            size.read(self.schedule.stream_steps(steps, name), name == FORGET or self.ends_passes)
            for name, size in sizes.items()
            if stream in (None, name)
        )

    def rows_beside_steps(self) -> int:
        """Rows that a whole training reads beside those of its steps, as far as a plan can tell."""
        return sum(lens.rows_read() for lens in self.active_lenses)

    def some_rows(self, rows: Rows, most: int) -> Rows:
        """At most `most` of the rows, drawn with the run's seed."""
        if len(rows) <= most:
            return rows
        generator = torch.Generator().manual_seed(self.args.seed)
        return rows.select(torch.randperm(len(rows), generator=generator)[:most].tolist())

    @property
    def examples(self) -> int:
        """Examples read so far to change the model: training steps, τ, proxies and extra forwards; not evaluation."""
        sampler = self._sampler()
        trained = sum(len(rows) for step in range(self.state.global_step) for rows in sampler.rows(step).values())
        return trained + int(self.method_state.get("side_examples", 0))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """One scoring pass over forget, retain, validation, test and the non-members; logs through Trainer. Of large
        roles other than forget a sample is scored, unless `score_all`.

        Returns:
            `dict[str, float]`: `eval_forget_accuracy`, `eval_forget_loss`, …, `eval_membership_auc` and its standard
            error.
        """
        splits = scored_rows(self.splits, self.args.seed, every=self.args.score_all)
        rows = {
            "forget": splits.forget,
            "retain": splits.retain,
            "validation": splits.validation_stop,
            "test": splits.test,
        }
        if splits.unseen_forgotten is not None:
            rows["nonmembers"] = splits.unseen_forgotten
        self.last_scores = {name: self._score(r) for name, r in rows.items() if len(r) or name == "nonmembers"}
        if "test" in self.last_scores:
            self.last_scores.setdefault("nonmembers", self.last_scores["test"])
        return self.log_scores(self.last_scores, metric_key_prefix)

    def log_scores(self, scores: dict[str, SplitScores], metric_key_prefix: str = "eval") -> dict[str, float]:
        """Send the figures of `scores`, by split, to the log and to every tracker; returns them by name."""
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in evaluation_metrics(scores).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def collect(self, rows: AnyRows, measure: Callable[[Predictions], torch.Tensor], model=None) -> np.ndarray:
        """Any figure of [`Predictions`] for `rows`, under the current or another model: `(rows, …)` in row order."""
        model = self.model_wrapped if model is None else model
        return collect(model, self.task, rows, {"figure": measure}, **self._scoring_options())["figure"]

    def _score(self, rows: Rows, model: torch.nn.Module | None = None) -> SplitScores:
        return score(self.model_wrapped if model is None else model, self.task, rows, **self._scoring_options())

    def _scoring_options(self) -> dict[str, Any]:
        return {
            "batch_size": self.args.per_device_eval_batch_size,
            "device": self.args.device,
            "autocast": self.accelerator.autocast,
            "num_workers": self.args.dataloader_num_workers,
        }
