"""Peak memory of unlearning through LoRA beside that of LoRA fine-tuning, by phase; and the sums for a larger model.

    python benchmarks/lora_memory.py                              # the shape of SmolLM2-135M, random weights
    python benchmarks/lora_memory.py --model FOLDER               # these weights
    python benchmarks/lora_memory.py --sums FOLDER                # another large model: its config, nothing else

All arms are an adapter of rank 8 on a frozen float32 base and get the same rows of random tokens: `fine_tune` is a
plain `Trainer` with as many rows in a forward as a step of the unlearning has, `unlearn` is ∇τ's default on a model
that came with its adapter, `unlearn_rows` its variant `rows`, which keeps a copy of the adapter (`kept_copy_mb`) to go
back to. Each runs in a process of its own on one thread of the CPU. A phase's peak is the kernel's
mark of the most resident memory (Linux), reset between phases, less what the process held before it had a model. The
sums are made on the meta device: weights, an adapter's weights, gradients and moments, and what autograd keeps of one
forward. `sum_over_measured` says what they are worth: the sum for the small model over the measured peak of
`fine_tune`. Written to `benchmarks/results/lora_memory.json`.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "lora_memory.json"
RANK, TOKENS, PROMPT = 8, 32, 8  # tokens of a row, and how many of them are no answer
FORGET, RETAIN, STEPS = 2, 4, 2  # rows in a forward
SMOL = {"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}  # fmt: skip
LLAMA_8B = {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}  # fmt: skip
MB = 2**20


def config_of(name: str | None, values: dict[str, Any]):
    from transformers import AutoConfig, LlamaConfig

    return AutoConfig.from_pretrained(name) if name else LlamaConfig(**values, max_position_embeddings=2048)


class Peak:
    """The most resident memory since the last reset, in MB, less what there was at the beginning."""

    def __init__(self):
        self.before, self.found, self.kept = self._status("VmRSS"), {}, 0.0

    def mark(self, phase: str) -> None:
        """End a phase: keep its peak, and begin the next."""
        self.found[phase] = round(self._status("VmHWM") - self.before, 1)
        Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def _status(key: str) -> float:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024


def setting(name: str | None):
    """A model with an adapter, rows of random tokens in their roles, and their task."""
    import datasets
    import numpy as np
    import torch

    from hf_unlearn.data.builtin.vocabulary import train_tokenizer
    from hf_unlearn.data.rows import Rows
    from hf_unlearn.data.splits import UnlearningSplits
    from hf_unlearn.models import lora
    from hf_unlearn.tasks.causal_lm import CausalLM

    class TokenRows(CausalLM):
        def encode(self, rows, positions):
            found = []
            for ids in map(torch.tensor, rows["question"]):
                labels = torch.where(torch.arange(len(ids)) < PROMPT, -100, ids)
                found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
            return found

    torch.manual_seed(0)
    if name:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    else:
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM(config_of(None, SMOL))
    sizes = {"forget": 4 * FORGET, "retain": 3 * RETAIN, "validation_tau": RETAIN, "validation_stop": 2, "test": 2}
    ids = np.random.default_rng(0).integers(1000, model.config.vocab_size, (sum(sizes.values()), TOKENS))
    source = datasets.Dataset.from_dict({"question": ids.tolist(), "answer": [""] * len(ids)})
    tokenizer = train_tokenizer(["a few words of text"], vocab_size=300, max_length=TOKENS, decoder_only=True)
    task, ends = TokenRows(tokenizer, {"question": "question", "answer": "answer"}), np.cumsum(list(sizes.values()))
    task.prepare_model(model)
    splits = {role: Rows(source, task, range(end - sizes[role], end)) for role, end in zip(sizes, ends, strict=True)}
    model = lora.add_lora(model, r=RANK, alpha=2 * RANK, dropout=0.0, task_type="CAUSAL_LM")
    return model, UnlearningSplits(**splits), task


def fine_tune(name: str | None, peak: Peak, folder: str) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    model, splits, task = setting(name)
    rows = torch.utils.data.Subset(splits.retain, range(3 * RETAIN))
    peak.mark("load")
    args = TrainingArguments(
        output_dir=folder, max_steps=STEPS, per_device_train_batch_size=FORGET + RETAIN, use_cpu=True,
        save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    Trainer(model, args, train_dataset=rows, data_collator=task.collate).train()
    peak.mark("steps")


def unlearn(name: str | None, peak: Peak, folder: str, **options) -> None:
    from transformers import TrainerCallback

    from hf_unlearn import NablaTauConfig, NablaTauTrainer
    from hf_unlearn.models import lora
    from hf_unlearn.trainers.handover import score_model
    from hf_unlearn.trainers.restoring import KEPT

    class Marks(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            peak.mark("proxy and targets")

        def on_step_end(self, *args, **kwargs):
            kept = [value for name, value in trainer.method_state.items() if name.startswith(KEPT)]
            peak.kept = round(sum(value.nbytes for value in kept) / MB, 1)

    model, splits, task = setting(name)
    lora.add_reference_adapter(model)
    peak.mark("load")
    args = NablaTauConfig(
        output_dir=folder, max_steps=STEPS, proxy_epochs=1, per_device_train_batch_size=RETAIN,
        per_device_forget_batch_size=FORGET, per_device_eval_batch_size=RETAIN, use_cpu=True, save_strategy="no",
        disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = NablaTauTrainer(model, args, splits, task, callbacks=[Marks()], quiet=True)
    trainer.train()
    peak.mark("steps")
    score_model(trainer)
    peak.mark("scoring")


ARMS = {"fine_tune": fine_tune, "unlearn": unlearn, "unlearn_rows": partial(unlearn, variant="rows")}


def sums(name: str | None, values: dict[str, Any], width: int) -> dict[str, float]:
    """MB that LoRA takes: from shapes alone. `width`: bytes of a weight of the base."""
    import torch
    from transformers import AutoModelForCausalLM

    from hf_unlearn.models import lora

    config = config_of(name, values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if width == 4 else torch.bfloat16)
        model = lora.add_lora(model, r=RANK, alpha=2 * RANK, dropout=0.0, task_type="CAUSAL_LM")
    held = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}  # the storages themselves, so that none is freed and its place used again

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros((FORGET + RETAIN, TOKENS), dtype=torch.int64, device="meta")
    mask = torch.zeros((FORGET + RETAIN, 1, TOKENS, TOKENS), dtype=torch.bool, device="meta")  # asks no values
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = logits.float().log_softmax(-1).sum()
    del loss
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    base = sum(p.numel() for p in model.parameters()) - adapter
    logit = logits.numel() * 4 / MB
    found = {
        "base": base * width / MB,
        "adapter": adapter * 4 * 4 / MB,  # weights, gradients, two moments
        "other adapters": adapter * 4 * 5 / MB,  # unlearning: the original's, frozen; the proxy's with its own moments
        "activations": sum(storage.nbytes() for storage in kept.values()) / MB - logit,
        "logits": 3 * logit,  # themselves, their softmax and the gradient
    }
    return {part: round(value, 1) for part, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder; default: the shape of SmolLM2-135M with random weights")
    parser.add_argument("--sums", help="name or folder of the larger model's config; default: Llama-3.1-8B's shape")
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        return run_arm(options.arm, options.model)
    from hf_unlearn.report.evidence import environment

    found, kept = {}, {}
    for arm in ARMS:
        command = [sys.executable, __file__, "--arm", arm, *(["--model", options.model] if options.model else [])]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        found[arm], kept[arm] = told["peak_mb"], told["kept_copy_mb"]
        print(f"{arm}: " + ", ".join(f"{phase} {value:,.0f} MB" for phase, value in found[arm].items()), flush=True)
    usual, ours, _ = highest = [max(found[arm].values()) for arm in ARMS]
    over = {arm: round(most / found[arm]["steps"], 3) for arm, most in zip(ARMS, highest, strict=True)}
    small, large = sums(options.model, SMOL, 4), sums(options.sums, LLAMA_8B, 2)
    tuned = {part: value for part, value in small.items() if part != "other adapters"}
    results = {
        "peak_mb": found,
        "unlearn_over_fine_tune": round(ours / usual, 3),
        "largest_phase_over_steps": over,
        "kept_copy_mb": kept,
        "sum_mb": small | {"total": round(sum(small.values()), 1)},
        "sum_over_measured": round(sum(tuned.values()) / usual, 3),
        "large_sum_mb": large | {"total": round(sum(large.values()), 1)},
        "weights": "random" if not options.model else Path(options.model).name,
        "large": "Llama-3.1-8B's shape" if not options.sums else Path(options.sums).name,
        "rows": {"forget": FORGET, "retain": RETAIN, "tokens": TOKENS, "rank": RANK},
        "environment": environment(seed=0, device="cpu", threads=1),
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({key: value for key, value in results.items() if key != "environment"}, indent=2))


def run_arm(arm: str, model: str | None) -> None:
    """One arm in this process; prints its phases' peaks as JSON."""
    import tempfile

    import datasets  # noqa: F401 - what is imported is no cost of the model
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import hf_unlearn.api  # noqa: F401

    torch.set_num_threads(1)
    peak = Peak()
    with tempfile.TemporaryDirectory() as folder:
        ARMS[arm](model, peak, folder)
    print(json.dumps({"peak_mb": peak.found, "kept_copy_mb": peak.kept}))


if __name__ == "__main__":
    main()
