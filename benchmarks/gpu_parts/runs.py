"""Part `runs`: whole runs of shipped configurations beside the same on the CPU; resuming; modes of training."""

import json
import multiprocessing
import os
import time
from pathlib import Path

from step_setup import make_trainer

from gpu_parts.cases import make_case
from gpu_parts.runner import Run, Skip, fresh_accelerate, need

CONFIGS = Path(__file__).parents[2] / "configs"
COMPARED = ("quickstart", "text_nabla_tau")
# A different order of additions sends two trainings apart: rows at the border change sides, single ones of 100 forget
# rows. Accuracies and membership AUCs of the original and the unlearned model may differ by so much.
TOLERANCE = {"forget": 0.08, "retain": 0.03, "test": 0.04, "membership": 0.08}
# The mean loss on retain rows after a few steps in another mode, relative to that without it.
MODES = {
    "bf16": ({"bf16": True}, 0.05),
    "gradient checkpointing": ({"gradient_checkpointing": True}, 1e-3),
    "torch.compile": ({"torch_compile": True}, 1e-2),
}
BATCH, STEPS = 16, 8


def runs(run: Run) -> None:
    """Three checks: the device computes what the CPU does; a resumed run is the whole one; modes change nothing."""
    under_way = {}
    with run.piece("configurations"):
        need("datasets", "sklearn", "PIL")
        under_way = start_configurations(run)  # in processes of their own, on the device and on the CPU
    with run.piece("resume"):
        resume(run)
    losses = {}
    for name in (None, *MODES):
        with run.piece(name or "no mode"):
            run.needs(15)
            losses[name] = after_steps(run, name)
            found = {"retain_loss": losses[name]}
            if name is not None and None in losses:
                away = abs(losses[name] / losses[None] - 1)
                found |= {"relative_difference": away, "tolerance": MODES[name][1], "met": away <= MODES[name][1]}
            run.put(name or "no mode", found)
    for name in dict.fromkeys(name for name, _ in under_way):
        with run.piece(name):
            run.put(name, compare(run, {side: under_way[name, side] for side in ("device", "cpu")}))


# Whole runs.


def start_configurations(run: Run) -> dict:
    """Process and folder of each run, by name and side."""
    found = {}
    for name in COMPARED[:1] if run.toy else COMPARED:
        for side in ("device", "cpu"):
            folder = run.folder / f"{name}_{side}"
            folder.mkdir()
            argv = ["--config", str(configuration(run, name)), "--output_dir", str(folder / "out"), "--retrain", "0"]
            argv += ["--use_cpu", "true"] if side == "cpu" or run.toy else []
            process = multiprocessing.get_context(run.start).Process(target=whole_run, args=(argv, folder))
            process.start()
            found[name, side] = process, folder
    return found


def configuration(run: Run, name: str) -> Path:
    """The shipped file; in a dry run with a few epochs."""
    path = CONFIGS / f"{name}.yaml"
    if not run.toy:
        return path
    import yaml

    values = yaml.safe_load(path.read_text())
    values["original"]["num_train_epochs"] = 1
    values |= {"num_train_epochs": 1, "proxy_epochs": 1}
    small = run.folder / path.name
    small.write_text(yaml.safe_dump(values))
    return small


def whole_run(argv: list[str], folder: Path) -> None:
    """`hf_unlearn/train.py` with caches of its own: an original trained on the other side would be taken up."""
    os.environ |= {"HF_UNLEARN_CACHE": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    import torch

    from hf_unlearn.train import main

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 4))
    start = time.monotonic()
    status = main(argv)
    (folder / "ended.json").write_text(json.dumps({"status": status, "seconds": round(time.monotonic() - start, 1)}))
    os._exit(0)


def compare(run: Run, sides: dict) -> dict:
    """Figures of both sides, and whether they agree within `TOLERANCE`."""
    figures = {}
    for side, (process, folder) in sides.items():
        process.join(max(1.0, run.left - 3))
        ended = folder / "ended.json"
        if not ended.exists():
            raise Skip(f"the run on the {side} has not come to an end: {last_line(folder / 'log')}")
        ended = json.loads(ended.read_text())
        if ended["status"]:
            raise RuntimeError(f"the run on the {side} failed: {last_line(folder / 'log')}")
        evidence = json.loads((folder / "out" / "evidence.json").read_text())
        figures[side] = {"seconds": ended["seconds"]}
        for model in ("original", "unlearned"):
            block = evidence["models"][model]
            figures[side][model] = block["accuracy"] | {"membership": block["membership"]["loss_auc"]}
    away = {
        f"{model} {key}": round(abs(figures["device"][model][key] - figures["cpu"][model][key]), 4)
        for model in ("original", "unlearned")
        for key in TOLERANCE
    }
    met = all(value <= TOLERANCE[name.split()[1]] for name, value in away.items())
    return figures | {"difference": away, "tolerance": TOLERANCE, "met": met}


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][-200:] if lines else "it has written nothing"


# The same run stopped and resumed, and in other modes.


def small_trainer(run: Run, folder: str, method: str = "rows", **more):
    fresh_accelerate()
    case = make_case("ViT small", run.toy, run.device)
    return make_trainer(
        method, case.model, case.source, case.task, str(run.folder / folder), examples=BATCH, forget=BATCH // 4,
        steps=STEPS, use_cpu=run.toy, proxy_epochs=0.5, learning_rate=1e-3, **more,
    )  # fmt: skip


def resume(run: Run) -> None:
    """Twice the same run, and one that is stopped half way and goes on from its checkpoint."""
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    options = {"disable_dropout": False, "save_strategy": "steps", "save_steps": STEPS // 2}
    ended = []
    for folder, checkpoint in (("whole", None), ("again", None), ("resumed", f"whole/checkpoint-{STEPS // 2}")):
        trainer = small_trainer(run, folder, **options)
        trainer.train(resume_from_checkpoint=checkpoint and str(run.folder / checkpoint))
        ended.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).cpu())
    torch.use_deterministic_algorithms(False)
    whole, again, resumed = ended
    run.put("resume", {
        "repeats_exactly": torch.equal(whole, again), "resumes_exactly": torch.equal(whole, resumed),
        "largest_difference": float((whole - resumed).abs().max()),
    })  # fmt: skip


def after_steps(run: Run, name: str | None) -> float:
    """Mean loss on the retain rows after a few steps of ∇τ in a mode."""
    options = dict(MODES[name][0]) if name else {}
    if run.toy and options.get("torch_compile"):
        options["torch_compile_backend"] = "eager"  # the code around the compiler; a compiler may not be there
    trainer = small_trainer(run, f"mode_{name}".replace(" ", "_"), **options)
    trainer.train()
    return float(trainer.score(trainer.splits.retain).loss.mean())
