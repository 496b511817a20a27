"""What a language model answers by itself, beside the answers in the data."""

from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import kept_randomness, model_inputs, pad, position_limit, unwrap
from hf_unlearn.tasks.tokenizing import pad_token_id

MAX_NEW_TOKENS = 200  # as in TOFU


def has_prompts(task: Task) -> bool:
    """Whether rows are questions with answers, rather than running text."""
    return "question" in task.columns or "messages" in task.columns


def answers(task: Task, rows: Rows) -> list[str]:
    """The supervised text of each row, as the model reads it (shortened where rows are too long)."""
    return [_text(task, feature["labels"][feature["labels"] >= 0]) for feature in _features(rows, range(len(rows)))]


def last_answers(task: Task, rows: Rows) -> list[str]:
    """Of each row the answer that [`generate`] is asked for: the last that is supervised."""
    features = _features(rows, range(len(rows)))
    return [_text(task, feature["labels"][_last_start(feature["labels"]) :]) for feature in features]


@torch.no_grad()
def generate(
    model: torch.nn.Module,
    task: Task,
    rows: Rows,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 64,
    temperature: float | None = None,
    seed: int = 0,
) -> list[str]:
    """A continuation of each row's prompt, without special tokens: the most likely one, token by token (greedy), or
    with a `temperature` one drawn with `seed` from the 50 likeliest tokens at each place (batches share the draws, so
    it depends on `batch_size`).

    Every row may have `max_new_tokens`, or as many as the model has positions for behind its own prompt, whatever
    stands beside it in the batch. Not divided over processes; the model's mode is left as it was.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    draws = (
        {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature, "top_k": 50}
    )
    limit = position_limit(model)
    texts: list[str] = []
    try:
        with kept_randomness(device):
            torch.manual_seed(seed)
            for start in range(0, len(rows), batch_size):
                features = _features(rows, range(start, min(start + batch_size, len(rows))))
                prompts = [_prompt(feature) for feature in features]
                longest = max(len(prompt["input_ids"]) for prompt in prompts)
                if limit is None or longest + max_new_tokens <= limit:
                    texts += _continue(model, task, prompts, max_new_tokens, draws)
                    continue
                for prompt in prompts:  # each to its own end
                    room = limit - len(prompt["input_ids"])
                    texts += _continue(model, task, [prompt], min(max_new_tokens, max(room, 1)), draws)
    finally:
        model.train(training)
    return texts


def _continue(model: torch.nn.Module, task: Task, prompts: list[dict], new: int, draws: dict[str, Any]) -> list[str]:
    fill, device = pad_token_id(task.processor), next(model.parameters()).device
    batch = pad(prompts, {"input_ids": fill, "attention_mask": 0}, "left")
    inputs = {k: v.to(device) for k, v in model_inputs(model, batch).items() if torch.is_tensor(v)}
    inner: Any = unwrap(model)
    found = inner.generate(
        **inputs,
        max_new_tokens=new,
        num_beams=1,
        **draws,
        pad_token_id=fill,
        eos_token_id=task.processor.eos_token_id,
    )
    return [_text(task, ids) for ids in found[:, batch["input_ids"].shape[1] :]]


def sample_rows(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many of the rows, drawn by `seed`, in their order."""
    if len(rows) <= most:
        return rows
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:most]))


def _features(rows: Rows, places: range) -> list[dict]:
    return rows.__getitems__(places)


def _prompt(feature: dict) -> dict[str, torch.Tensor]:
    ids = feature["input_ids"][: _last_start(feature["labels"])]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _last_start(labels: torch.Tensor) -> int:
    """Where the last unbroken run of supervised tokens begins; it reaches to the end of the row."""
    others = (labels < 0).nonzero()
    return int(others[-1]) + 1 if len(others) else 0


def _text(task: Task, ids: torch.Tensor) -> str:
    return task.processor.decode(ids.tolist(), skip_special_tokens=True)
