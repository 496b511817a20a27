"""Does a run that is killed at any moment, and whose newest checkpoint may be torn, end as if nothing had happened?

Tiny runs of the whole command, each in a process of its own, get SIGKILL at random moments and go on with
`--resume_from_checkpoint last` until they are finished. Saved weights and every figure of the evidence are then held
against those of an undisturbed run, bit for bit. After some of the kills the newest checkpoint is torn as well.

    python benchmarks/kills.py                      # a few minutes on one core
    python benchmarks/kills.py --methods npo --kills 20 --seed 1

The processes are forked from one that has the libraries loaded, so that kills fall into work and not into imports.
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import tiny

RESULTS = Path(__file__).parent / "results" / "kills.json"
MOST = 6  # kills of one run; then it may finish
FILES = ("model.safetensors", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
         "trainer_state.json", "method_state.safetensors")  # fmt: skip
TEARS = ("cut in half", "emptied", "zeroed", "changed by a bit", "taken away", "half a folder")

RUNS: dict[str, dict] = {
    "nabla_tau": {"task": "text_classification"},
    "nabla_tau LoRA": {"task": "text_classification", "use_peft": True},
    "nabla_tau accumulation": {"task": "causal_lm", "gradient_accumulation_steps": 2},
    "salun": {"task": "image_classification"},
    "salun LoRA": {"task": "image_classification", "use_peft": True, "save_adapter": True},
    "unsir": {"task": "image_classification", "forget_classes": ["warm"], "forget_fraction": None, "noise_steps": 5,
              "impair_steps": 10, "repair_steps": 10},
    "scrub": {"task": "text_classification"},
    "bad_teacher workers": {"task": "image_classification", "dataloader_num_workers": 1},
    "npo": {"task": "causal_lm", "retain_term": "kl"},
    "npo LoRA": {"task": "causal_lm", "use_peft": True},
    "rmu": {"task": "causal_lm", "layer": 0},
    "neg_grad_plus masked": {"task": "text_classification", "saliency": 0.5, "optim": "sgd"},
}  # fmt: skip
DROPOUT = {
    "image_classification": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "text_classification": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "causal_lm": {"attention_dropout": 0.1},
}


@dataclass
class Tally:
    """What happened to one method's runs."""

    runs: int = 0
    kills: int = 0
    moments: Counter = field(default_factory=Counter)
    torn: Counter = field(default_factory=Counter)
    started_again: int = 0  # where no whole checkpoint was left
    differ: list[str] = field(default_factory=list)  # runs that did not end as the undisturbed one


def configuration(name: str, folder: Path) -> list[str]:
    """Writes rows and configuration of a run; returns the command line. With dropout, so that random states count."""
    more = dict(RUNS[name])
    task, method = more.pop("task"), name.split()[0]
    config = tiny.own_data(
        folder, task, method=method, cache_dir=str(folder / "cache"), seed=0, save_strategy="steps", save_steps=2,
        save_total_limit=4, max_steps=20, disable_dropout=False, **more,
    )  # fmt: skip
    config["original"] = config["original"] | {"num_train_epochs": 3}
    config["original"]["model_config"] = config["original"]["model_config"] | DROPOUT[task]
    if method not in ("nabla_tau", "salun"):
        del config["proxy_epochs"]
    if method == "unsir":
        del config["max_steps"], config["num_train_epochs"]
    return ["train", "--config", tiny.write_config(folder, {k: v for k, v in config.items() if v is not None})]


def start(argv: list[str], log: Path) -> int:
    """A process that runs the command and writes what it says to `log`; returns its id."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from hf_unlearn import cli

        status = cli.main(argv)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(process: int, now: Callable[[], bool] | None = None) -> int:
    """Wait for a process, and kill it when `now` says so; returns its exit status, or minus the signal that ended
    it."""
    while True:
        found, status = os.waitpid(process, 0 if now is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if now is not None and now():
            os.kill(process, signal.SIGKILL)
            now = None
        time.sleep(0.002)


def random_moment(seconds: float, output: Path, rng: np.random.Generator) -> Callable[[], bool]:
    """Half of the kills come at any time of a run of `seconds`; the others a moment after one of the next three
    checkpoints is begun, since a checkpoint takes milliseconds of it."""
    began, there, seen = time.monotonic(), set(output.glob("checkpoint-*")), set()
    anywhere, after, pause = rng.random() < 0.5, int(rng.integers(1, 4)), float(rng.uniform(0, 0.1))
    delay = float(rng.uniform(0, seconds))

    def now() -> bool:
        if anywhere:
            return time.monotonic() >= began + delay
        seen.update(set(output.glob("checkpoint-*")) - there)
        if len(seen) < after:
            return False
        time.sleep(pause)
        return True

    return now


def moment(output: Path) -> str:
    """Where a kill struck, by what it left."""
    from hf_unlearn.trainers.resuming import checkpoints, what_is_missing

    if (output / "evidence.json").exists() or list(output.glob("*model*.safetensors")):
        return "after the unlearning"
    folders = checkpoints(output)
    if not folders:
        return "before the first checkpoint"
    return "between checkpoints" if what_is_missing(folders[0]) is None else "while a checkpoint was written"


def tear(output: Path, rng: np.random.Generator) -> str | None:
    """Damage the newest checkpoint; returns how, or `None` where there is none."""
    folders = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    present = [folders[-1] / name for name in FILES if (folders[-1] / name).exists()] if folders else []
    if not present:
        return None
    how, file = TEARS[rng.integers(len(TEARS))], present[rng.integers(len(present))]
    if how == "cut in half":
        os.truncate(file, file.stat().st_size // 2)
    elif how == "emptied":
        os.truncate(file, 0)
    elif how in ("zeroed", "changed by a bit"):
        content = bytearray(file.read_bytes())
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(len(content)) if how == "zeroed" else content)
    elif how == "taken away":
        file.unlink()
    else:
        for path in rng.permutation(sorted(map(str, folders[-1].iterdir())))[::2]:
            Path(path).unlink()
        return how
    return f"{file.name} {how}"


def result(output: Path) -> dict[str, bytes | str]:
    """What must not differ: every saved tensor as bytes (weights, masks), and the figures of the evidence."""
    from safetensors.numpy import load_file

    tensors = {
        f"{path.name}: {name}": value.tobytes()
        for path in output.glob("*.safetensors")
        for name, value in load_file(path).items()
    }
    evidence = json.loads((output / "evidence.json").read_text())
    return tensors | {name: json.dumps(evidence[name]) for name in ("models", "gap", "judged")}


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def disturbed(name: str, seconds: float, rng: np.random.Generator, tally: Tally, most: int) -> dict:
    """One run that is killed up to `most` times; returns its result."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        argv, output, log = configuration(name, folder), folder / "out", folder / "log"
        for attempt in range(4 * MOST):
            resume = ["--resume_from_checkpoint", "last"] if list(output.glob("checkpoint-*")) else []
            now = random_moment(seconds, output, rng) if attempt < most else None
            status = end(start([*argv, *resume], log), now)
            if status == 0:
                return result(output)
            if status == -signal.SIGKILL:
                tally.kills += 1
                tally.moments[moment(output)] += 1
                if rng.random() < 0.4 and (torn := tear(output, rng)):
                    tally.torn[torn] += 1
            elif status == 2 and "no checkpoint there that is whole" in last_line(log):
                tally.started_again += 1
                shutil.rmtree(output)
            else:
                raise SystemExit(f"{name}: exit status {status}\n{log.read_text(errors='replace')[-3000:]}")
    raise SystemExit(f"{name}: it does not end")


def try_method(name: str, kills: int, seed: int) -> Tally:
    """Runs of one method until it was killed often enough."""
    rng, tally = np.random.default_rng([seed, list(RUNS).index(name)]), Tally()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        if end(start(configuration(name, folder), folder / "log")):
            raise SystemExit(f"{name}: the undisturbed run fails\n{(folder / 'log').read_text()[-3000:]}")
        seconds, expected = time.monotonic() - began, result(folder / "out")
    while tally.kills < kills:
        found = disturbed(name, seconds, rng, tally, MOST)
        tally.runs += 1
        parts = sorted(expected.keys() | found.keys())
        tally.differ += [f"run {tally.runs}: {part}" for part in parts if found.get(part) != expected.get(part)]
    told = f"{name}: {tally.kills} kills in {tally.runs} runs, {sum(tally.torn.values())} checkpoints torn"
    print(f"{told}; {'different: ' + ', '.join(tally.differ) if tally.differ else 'bit-identical'}", flush=True)
    return tally


def load_libraries() -> None:
    """What a run imports, before the processes are made."""
    import torch

    import hf_unlearn

    own = [module.name for module in pkgutil.walk_packages(hf_unlearn.__path__, "hf_unlearn.")]
    models = [f"transformers.models.{kind}.modeling_{kind}" for kind in ("vit", "bert", "llama")]
    others = ("datasets", "peft", "matplotlib.pyplot", "matplotlib.backends.backend_svg")
    for name in (*own, *models, *others):
        if "evaluation.modules" not in name:
            importlib.import_module(name)
    torch.set_num_threads(1)
    gc.freeze()  # so that the processes do not collect what they share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--kills", type=int, default=8, help="of each method, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_save", action="store_true", help="print only")
    options = parser.parse_args()
    load_libraries()
    tallies = {}
    for name in options.methods:
        tallies[name] = try_method(name, options.kills, options.seed)
        if not options.no_save:
            store({name: vars(tallies[name])}, options.seed)
    return int(any(tally.differ for tally in tallies.values()))


def store(found: dict[str, dict], seed: int) -> None:
    """Put what was found of some methods into the stored results, beside those of the others."""
    stored = json.loads(RESULTS.read_text())["methods"] if RESULTS.exists() else {}
    methods = {name: (stored | found)[name] for name in RUNS if name in stored | found}
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "accelerate", "peft", "datasets")}
    total = {
        "seed": seed,
        "kills": sum(tally["kills"] for tally in methods.values()),
        "moments": dict(sum((Counter(tally["moments"]) for tally in methods.values()), Counter())),
        "torn": sum(sum(tally["torn"].values()) for tally in methods.values()),
        "differences": sum(len(tally["differ"]) for tally in methods.values()),
        "methods": methods,
        "environment": {"python": platform.python_version(), **versions, "device": f"{platform.machine()}, 1 core"},
    }
    RESULTS.write_text(json.dumps(total, indent=1) + "\n")
    print(f"{total['kills']} kills ({total['moments']}), {total['torn']} torn, {total['differences']} differences")


if __name__ == "__main__":
    sys.exit(main())
