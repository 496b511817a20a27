"""What is held after the unlearning, while twins are trained: the model, and no optimizer."""

import gc
import weakref
from types import SimpleNamespace

import torch
from toy import image_setup

from hf_unlearn.methods import get_method
from hf_unlearn.run import stages


def test_the_optimizers_state_is_gone_before_twins_are_made(tmp_path):
    model, splits, task = image_setup()
    method, held = get_method("grad_diff"), []
    args = method.config_class(output_dir=str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True)
    trainer = method(model, args, splits, task, quiet=True)
    own = trainer.train

    def train(**options):
        own(**options)
        weights = sum(p.numel() for p in model.parameters())
        moments = [
            v for state in trainer.optimizer.state.values() for k, v in state.items() if k.startswith("exp_avg")
        ]
        assert sum(v.numel() for v in moments) == 2 * weights
        held.extend(map(weakref.ref, moments))

    trainer.train = train
    lora = SimpleNamespace(merge_unquantized=False, save_adapter=False)
    done = stages.unlearn(SimpleNamespace(trainer=args, lora=lora), SimpleNamespace(side_examples=0), trainer)
    gc.collect()
    assert done.steps == 2 and held and not [ref for ref in held if ref() is not None]
    assert all(p.grad is None for p in model.parameters()) and torch.isfinite(done.model.classifier.weight).all()
