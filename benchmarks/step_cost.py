"""What a step of every method costs beside a plain `transformers.Trainer` step over as many examples, and how much
memory each phase of a run takes.

    python benchmarks/step_cost.py                       # every method that serves the model
    python benchmarks/step_cost.py --methods nabla_tau   # these only; the others' stored figures stay
    python benchmarks/step_cost.py --check --methods nabla_tau salun   # compare with what is stored, store nothing

A small ViT, and a small Llama with a vocabulary of 32,768. Every measurement is a process of its own, a plain one
before each method, on one thread, in float32 with AdamW. Phases: `before` (targets and their proxy, references, a
mask: all that is measured before the first step), `steps`, and `score` (forget, retain and test rows once). Time is
processor time, the median over steps that measure no targets; a method without steps has none, and its edit is the
phase `steps`. Memory is the most
resident memory of a phase (Linux), less what the process held before it had a model; its ratio is to the plain steps'.
With `--check` a ratio of time may be 1.25 times the stored one, one of memory 1.1 times. Stored in
`benchmarks/results/step_cost.json`.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "step_cost.json"
EXAMPLES, FORGET = 24, 8  # per step: 16 retain and 8 forget rows, or 24 plain ones
VOCABULARY, LAYERS = 32_768, 2
WARM = 3  # steps that are not counted
OPTIONS: dict[str, dict[str, Any]] = {  # what makes a method quick, and what it cannot be asked without
    "nabla_tau": {"proxy_epochs": 1},
    "salun": {"proxy_epochs": 1},
    "altpo": {"alternates": 1, "alternate_tokens": 4},
    "ssd": {"selection": 1.01},
    "unsir": {"noise_steps": 2, "impair_steps": 4, "noise_rows": 8},
}
MASKED = "nabla_tau masked"
TIME_TOLERANCE, MEMORY_TOLERANCE = 1.25, 1.1


def build(kind: str, vocabulary: int | None = None, layers: int = 6):
    """Model, rows and task. `vocabulary`: of the language model; by default its tokenizer's."""
    import datasets
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    from hf_unlearn.tasks import get_task

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if kind == "vit":
        config = ViTConfig(hidden_size=192, num_hidden_layers=layers, num_attention_heads=3, intermediate_size=768,
                           image_size=64, patch_size=8, num_labels=10)  # fmt: skip
        processor = ViTImageProcessorPil(do_resize=False)
        names = [str(i) for i in range(10)]
        task = get_task("image_classification")(processor, {"image": "image", "label": "label"}, label_names=names)
        images = rng.integers(0, 255, (128, 64, 64, 3), dtype=np.uint8)
        rows = {"image": list(images), "label": [i % 10 for i in range(128)]}
        features = datasets.Features(
            {"image": datasets.Array3D((64, 64, 3), "uint8"), "label": datasets.Value("int64")}
        )
        return ViTForImageClassification(config), datasets.Dataset.from_dict(rows, features), task
    from hf_unlearn.data.sources import load_source

    source = load_source("fictitious_authors")
    tokenizer = source.make_processor()
    config = LlamaConfig(vocab_size=vocabulary or len(tokenizer), hidden_size=192, num_hidden_layers=layers,
                         num_attention_heads=6, num_key_value_heads=6, intermediate_size=512,
                         max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    task = get_task("causal_lm")(tokenizer, source.columns)
    model = LlamaForCausalLM(config)
    task.prepare_model(model)
    if config.vocab_size > len(tokenizer):  # what it makes up is made of words
        model.generation_config.suppress_tokens = list(range(len(tokenizer), config.vocab_size))
    return model, source.train.select(range(128)), task


def make_trainer(kind: str, method: str, folder: str, steps: int, callbacks: list):
    """A plain Trainer, or a method's, whose steps take `EXAMPLES` rows of whichever streams it reads."""
    import step_setup

    from hf_unlearn.methods import get_method

    model, source, task = build(kind, VOCABULARY, LAYERS)
    shared = {"use_cpu": True, "dataloader_pin_memory": False}
    if method == "plain":
        return step_setup.make_trainer(
            method, model, source, task, folder, examples=EXAMPLES, forget=FORGET, steps=steps, callbacks=callbacks,
            **shared,
        )  # fmt: skip
    name = method.removesuffix(" masked")
    splits, trainer_class = step_setup.splits_of(source, task), get_method(name)
    splits.forgotten_classes = (0,) if name == "unsir" else ()
    options = OPTIONS.get(name, {}) | ({"saliency": 0.5} if method == MASKED else {})
    options |= {"repair_steps": steps - 6} if name == "unsir" else {}

    def made(retain: int, forget: int):
        args = trainer_class.config_class(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=retain, learning_rate=1e-5,
            per_device_forget_batch_size=forget, per_device_eval_batch_size=EXAMPLES, disable_tqdm=True,
            logging_strategy="no", save_strategy="no", report_to="none", seed=0, **shared, **options,
        )  # fmt: skip
        return trainer_class(model, args, splits, task, callbacks=callbacks, quiet=True)

    trainer = made(EXAMPLES - FORGET, FORGET)
    if len(trainer.schedule.phases[-1].streams) == 1:
        trainer = made(EXAMPLES, EXAMPLES)
    return trainer


def _status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure(kind: str, method: str, steps: int) -> dict[str, Any]:
    """Processor seconds and peak memory in MB by phase, and those of a step."""
    from transformers import TrainerCallback

    from hf_unlearn.trainers.edit import EditTrainer
    from hf_unlearn.trainers.handover import score_model
    from hf_unlearn.trainers.row_target_trainer import REFIT

    found: dict[str, Any] = {"seconds": {}, "peak_mb": {}}
    held = _status("VmRSS")
    began = [time.process_time()]

    def end(phase: str) -> None:
        found["seconds"][phase] = round(time.process_time() - began.pop(), 3)
        found["peak_mb"][phase] = round(_status("VmHWM") - held, 1)
        begin()

    def begin() -> None:
        Path("/proc/self/clear_refs").write_text("5")
        began.append(time.process_time())

    class Clock(TrainerCallback):
        """Ends the phase before the steps, and notes when each step ends."""

        def __init__(self):
            self.ends: list[float] = []

        def on_train_begin(self, *args, **kwargs):
            end("before")

        def on_step_end(self, *args, **kwargs):
            self.ends.append(time.process_time())

    clock = Clock()
    begin()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, method, folder, steps, [clock])
        trainer.train()
        end("steps")
        if method != "plain":
            score_model(trainer)
            end("score")
            found["examples"] = trainer.examples
    refits = {int(steps * share) for share in REFIT}  # those measure targets too
    counted = [i for i in range(WARM + 1, len(clock.ends)) if i not in refits]
    each = [clock.ends[i] - clock.ends[i - 1] for i in counted]
    found["step_ms"] = 1e3 * statistics.median(each) if each and not isinstance(trainer, EditTrainer) else None
    return found


def _child(kind: str, method: str, steps: int, pipe) -> None:
    import torch

    torch.set_num_threads(1)
    pipe.send(measure(kind, method, steps))


def in_own_process(kind: str, method: str, steps: int) -> dict[str, Any]:
    """[`measure`] in a process that has imported everything and held no model yet."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(kind, method, steps, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit(f"{method} on {kind} failed; what it said stands above") from None
    finally:
        process.join()


def served(kind: str) -> list[str]:
    """The methods that serve a model's task."""
    from hf_unlearn.errors import UserError
    from hf_unlearn.methods import METHODS, get_method

    task, found = build(kind)[2], []
    for name in METHODS:
        try:
            get_method(name).check_task(task)
        except UserError:
            continue
        found += [name, MASKED] if name == "nabla_tau" else [name]
    return found


def beside(plain: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A method's figures and what they are to the plain ones."""
    memory = {phase: round(mb / plain["peak_mb"]["steps"], 3) for phase, mb in ours["peak_mb"].items()}
    step = None if ours["step_ms"] is None else round(ours["step_ms"] / plain["step_ms"], 3)
    return {"step_ratio": step, "memory_ratio": memory, "plain_step_ms": plain["step_ms"], **ours}


def line(kind: str, method: str, row: dict[str, Any]) -> str:
    memory = " | ".join(f"{row['memory_ratio'][phase]:.2f}×" for phase in ("before", "steps", "score"))
    step = "none | –" if row["step_ratio"] is None else f"{row['step_ms']:.0f} ms | {row['step_ratio']:.2f}×"
    return f"| {kind} | {method} | {step} | {memory} |"


def check(row: dict[str, Any], stored: dict[str, Any] | None) -> list[str]:
    """What is dearer than the stored figures allow."""
    if stored is None:
        return ["nothing is stored"]
    wrong, ours, before = [], row["step_ratio"], stored["step_ratio"]
    if ours is not None and before is not None and ours > TIME_TOLERANCE * before:
        wrong.append(f"a step takes {ours:.2f} plain ones, stored are {before:.2f}")
    for phase, ratio in row["memory_ratio"].items():
        if ratio > MEMORY_TOLERANCE * stored["memory_ratio"][phase]:
            wrong.append(
                f"{phase} takes {ratio:.2f} times a plain step's memory, stored {stored['memory_ratio'][phase]:.2f}"
            )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--kinds", nargs="+", default=["vit", "llama"], choices=["vit", "llama"])
    parser.add_argument("--methods", nargs="+", help="these only (default: all that serve the model)")
    parser.add_argument("--check", action="store_true", help="compare with what is stored; store nothing")
    options = parser.parse_args()
    import torch
    import transformers

    from hf_unlearn.report.evidence import environment

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    models = stored.get("models", {})
    wrong = []
    print("| model | method | step | beside plain | memory before | in steps | scoring |\n|" + " --- |" * 7)
    for kind in options.kinds:
        chosen = [name for name in served(kind) if options.methods is None or name in options.methods]
        for method in chosen:
            plain = in_own_process(kind, "plain", options.steps)
            row = beside(plain, in_own_process(kind, method, options.steps))
            print(line(kind, method, row), flush=True)
            if options.check:
                wrong += [f"{kind} {method}: {text}" for text in check(row, models.get(kind, {}).get(method))]
                continue
            models.setdefault(kind, {})[method] = row
            results = {
                "examples_per_step": EXAMPLES, "vocabulary": VOCABULARY, "models": models,
                "environment": environment(seed=0, device="cpu", threads=1),
            }  # fmt: skip
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    if options.check:
        print("\n".join(wrong) or "as stored")
        raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
