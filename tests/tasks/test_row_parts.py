"""Running text longer than `max_length`: several sequences of a batch, one row of every figure and every step."""

import numpy as np
import pytest
import torch
from toy import lm_setup, splits_of, text_rows

from hf_unlearn.data.rows import Rows
from hf_unlearn.evaluation.scoring import score_tokens
from hf_unlearn.methods import get_method
from hf_unlearn.tasks import get_task
from hf_unlearn.tasks.forward import rows_of
from hf_unlearn.tasks.row_parts import OWNER, by_row

LENGTH = 4  # tokens of a part; texts of 3 to 8 words


@pytest.fixture
def setup():
    model, _, task = lm_setup(torch.float64)
    task = get_task("causal_lm")(task.processor, {"text": "text"}, max_length=LENGTH)
    return model, splits_of(text_rows(74), task), task


def by_hand(model, ids: list[int]) -> np.ndarray:
    """Log-probabilities of all tokens but the first: parts of four, each begun by the last token of the one before."""
    found = []
    for start in range(0, len(ids) - 1, LENGTH - 1):
        part = torch.tensor([ids[start : start + LENGTH]])
        log_probs = model(input_ids=part).logits[0].log_softmax(-1)
        found += [float(log_probs[t, part[0, t + 1]].detach()) for t in range(part.shape[1] - 1)]
    assert len(found) == len(ids) - 1
    return np.array(found)


def test_a_rows_figures_are_over_all_its_tokens(setup):
    model, splits, task = setup
    ids = [task.processor(text)["input_ids"] for text in splits.forget.source[splits.forget.indices]["text"]]
    expected = [by_hand(model, row) for row in ids]
    assert {len(row) > LENGTH for row in ids} == {True, False}
    for batch_size in (1, 4):
        scores, tokens = score_tokens(model, task, splits.forget, batch_size=batch_size)
        assert tokens.count.tolist() == [len(row) for row in expected]
        assert tokens.log_prob == pytest.approx(np.concatenate(expected), abs=1e-9)
        assert scores.loss == pytest.approx([-row.mean() for row in expected], abs=1e-9)
    batch = task.collate(splits.forget.__getitems__(range(4)))
    assert batch["input_ids"].shape[1] == LENGTH and len(task.embed(model, batch)) == 4


def test_rows_of_a_batch(setup):
    _, splits, task = setup
    batch = task.collate(splits.forget.__getitems__(range(5)))
    batch |= task.host_facts(batch)
    part = rows_of(batch, slice(2, 4))
    alone = task.collate(splits.forget.__getitems__([2, 3]))
    assert torch.equal(part["input_ids"], alone["input_ids"]) and torch.equal(part[OWNER], alone[OWNER])
    assert part["supervised"] == batch["supervised"][2:4]
    joined = by_row(batch["input_ids"], batch)
    for i, row in enumerate(splits.forget.__getitems__(range(5))):
        first, *rest = row["input_ids"].tolist()
        seen = joined[i][joined[i] != 0].tolist()
        assert [token for k, token in enumerate(seen) if k % LENGTH or not k] == [first, *rest]


@pytest.mark.parametrize("method", ["npo", "rmu"])  # numbers per row, and hidden states
def test_steps_do_not_depend_on_their_division(tmp_path, method):
    found = []
    for parts in (1, 2):
        model, _, task = lm_setup(torch.float64)
        task = get_task("causal_lm")(task.processor, {"text": "text"}, max_length=LENGTH)
        kind = get_method(method)
        args = kind.config_class(
            output_dir=str(tmp_path), max_steps=2, learning_rate=1e-2, use_cpu=True, disable_tqdm=True,
            per_device_train_batch_size=8 // parts, per_device_forget_batch_size=8 // parts,
            gradient_accumulation_steps=parts,
        )  # fmt: skip
        trainer = kind(model, args, splits_of(text_rows(74), task), task, quiet=True)
        trainer.train()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (found[0] - found[1]).abs().max() < 1e-9


def test_questions_are_cut_as_before(setup):
    _, splits, task = setup
    pairs = get_task("causal_lm")(task.processor, {"question": "question", "answer": "answer"}, max_length=LENGTH)
    assert max(len(row["input_ids"]) for row in Rows(splits.forget.source, pairs).__getitems__(range(20))) == LENGTH
