"""How rows come to a step: in worker processes, one step ahead, and with what the host must know of them."""

import pytest
import torch
from toy import SETUPS, image_setup, lm_setup

from hf_unlearn.errors import NonFiniteLossError
from hf_unlearn.evaluation import scoring
from hf_unlearn.methods.nabla_tau import NablaTauTrainer
from hf_unlearn.tasks.supervised_head import supervised
from hf_unlearn.trainers.joint_batch import JointCollator, JointDataset
from hf_unlearn.trainers.loading import Ahead
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer


def trainer(folder, setup, kind=NablaTauTrainer, **kwargs):
    model, splits, task = setup
    kwargs = {"variant": "held"} | kwargs if kind is NablaTauTrainer else kwargs
    kwargs = {"per_device_train_batch_size": 8, "per_device_forget_batch_size": 4} | kwargs
    args = kind.config_class(
        output_dir=str(folder), learning_rate=1e-2, num_train_epochs=2, use_cpu=True, disable_tqdm=True,
        logging_steps=1, **kwargs,
    )  # fmt: skip
    return kind(model, args, splits, task, quiet=True)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_workers_change_nothing(tmp_path):
    runs = [
        trainer(tmp_path, image_setup(dropout=0.1), dataloader_num_workers=n, disable_dropout=False) for n in (0, 2)
    ]
    for run in runs:
        run.train()
    assert torch.equal(weights(runs[0].model), weights(runs[1].model))


def test_scoring_has_the_workers_that_training_has(tmp_path, monkeypatch):
    asked, loader = [], scoring.DataLoader
    monkeypatch.setattr(scoring, "DataLoader", lambda *args, **ways: asked.append(ways) or loader(*args, **ways))
    own, alone = (trainer(tmp_path, image_setup(), dataloader_num_workers=n) for n in (2, 0))
    found = [run.score(run.splits.test).loss.tolist() for run in (own, alone)]
    assert found[0] == found[1] and [ways["num_workers"] for ways in asked] == [2, 0]
    assert not asked[0]["pin_memory"]  # there is no accelerator


def test_what_is_ahead_keeps_the_order_and_is_placed_once():
    placed = []
    ahead = Ahead(iter("abcde"), lambda batch: placed.append(batch) or batch.upper())
    assert next(ahead) == "A" and placed == ["a"]
    ahead.fetch(2)
    assert placed == ["a", "b", "c"]
    ahead.fetch(2)
    assert placed == ["a", "b", "c"]  # they are waiting already
    assert list(ahead) == ["B", "C", "D", "E"] and placed == list("abcde")
    ahead.fetch(2)
    with pytest.raises(StopIteration):
        next(ahead)


@pytest.mark.parametrize("kind", SETUPS)
def test_a_batch_says_on_the_host_what_it_holds(kind):
    _, splits, task = SETUPS[kind]()
    keys = [("forget", 3), ("forget", 1), ("retain", 4), ("retain", 0), ("retain", 9)]
    batch = JointCollator(task)(JointDataset({"forget": splits.forget, "retain": splits.retain}).__getitems__(keys))
    assert batch["forget_size"] == 2 and batch["rows"] == [3, 1, 4, 0, 9] == batch["index"].tolist()
    if kind == "lm":
        assert batch["inputs"]["supervised"] == supervised(batch["inputs"]["labels"]).sum(1).tolist()
    else:
        assert all(torch.is_tensor(value) for value in batch["inputs"].values())
    assert JointCollator(task)([]) == {"inputs": {}, "index": pytest.approx([]), "rows": [], "forget_size": 0}


def test_predictions_do_not_depend_on_who_counted():
    model, splits, task = lm_setup()
    batch = task.collate(splits.retain.__getitems__(range(6)))
    told, asked = task.predict(model, batch | task.host_facts(batch)), task.predict(model, batch)
    assert told.counts == asked.counts == torch.bincount(told.example).tolist() == told.token_count.tolist()
    example, position = supervised(batch["labels"]).nonzero(as_tuple=True)
    assert torch.equal(told.example, example) and torch.equal(told.labels, batch["labels"][example, position + 1])
    assert torch.equal(told.logits, asked.logits)
    first, second = told.split(2)
    assert first.counts + second.counts == told.counts and len(first.labels) == sum(told.counts[:2])
    assert set(first.example.tolist()) == {0, 1} and set(second.example.tolist()) == {0, 1, 2, 3}


class Breaking(RetainOnlyTrainer):
    """Its loss is not finite at step 3, or its gradient alone."""

    part = "loss"

    def unlearning_loss(self, retain):
        loss = super().unlearning_loss(retain)
        if self.state.global_step != 2:
            return loss
        zero = (loss - loss.detach()).clamp(min=0)
        return loss * torch.inf if self.part == "loss" else loss + zero.sqrt()  # the root's slope at 0 is infinite


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_broken_step_is_not_made_and_the_last_good_one_is_saved(tmp_path, monkeypatch, part):
    monkeypatch.setattr(Breaking, "part", part)
    whole = trainer(tmp_path / "whole", image_setup(), RetainOnlyTrainer, max_steps=2, lr_scheduler_type="constant")
    whole.train()
    broken = trainer(tmp_path / "broken", image_setup(), Breaking, max_steps=6, lr_scheduler_type="constant")
    with pytest.raises(NonFiniteLossError, match="step 3"):
        broken.train()
    assert torch.equal(weights(broken.model), weights(whole.model))
    assert [path.name for path in (tmp_path / "broken").glob("checkpoint-*")] == ["checkpoint-2"]
    again = trainer(tmp_path / "again", image_setup(), RetainOnlyTrainer, max_steps=6, lr_scheduler_type="constant")
    again.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-2"))
    assert torch.isfinite(weights(again.model)).all()


def test_micro_batches_of_texts_are_padded_to_less_than_the_step(tmp_path):
    def padded(**options):
        t = trainer(tmp_path, SETUPS["text"](), max_steps=6, **options)
        return [batch["inputs"]["attention_mask"] for batch in t.get_train_dataloader()]

    whole = padded()
    parts = padded(per_device_train_batch_size=2, per_device_forget_batch_size=1, gradient_accumulation_steps=4)
    assert sum(int(mask.sum()) for mask in parts) == sum(int(mask.sum()) for mask in whole)
    assert sum(mask.numel() for mask in parts) < 0.85 * sum(mask.numel() for mask in whole)
