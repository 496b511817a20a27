"""The precision of a run is the one that was asked for, whatever the model went through before."""

import torch
from toy import image_setup
from transformers import Trainer, TrainingArguments

from hf_unlearn.methods.fine_tune import FineTuneConfig, FineTuneTrainer


def inside(model, seen: list):
    model.vit.layers[0].mlp.fc1.register_forward_hook(lambda module, given, output: seen.append(output.dtype))


def test_a_model_that_was_trained_here_takes_the_precision_of_each_run(tmp_path):
    model, splits, task = image_setup()
    seen, shared = [], {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "max_steps": 1}
    inside(model, seen)
    first = TrainingArguments(str(tmp_path / "first"), remove_unused_columns=False, save_strategy="no", **shared)
    Trainer(model=model, args=first, train_dataset=splits.retain, data_collator=task.collate).train()
    assert set(seen) == {torch.float32}
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        seen.clear()
        args = FineTuneConfig(output_dir=str(tmp_path), bf16=bf16, **shared)
        FineTuneTrainer(model, args, splits, task, quiet=True).train()
        assert set(seen) == {dtype}
