"""Part `fsdp`: FSDP2 on one device. Trains, saves and loads, with and without a mask."""

import os

from step_setup import make_trainer

from gpu_parts.cases import make_case
from gpu_parts.runner import Run, fresh_accelerate

STEPS = 4
TOLERANCE = (
    1e-4  # relative, of the mean loss on retain rows, between the sharded run, the plain one and what was loaded
)


def fsdp(run: Run) -> None:
    """A small Llama through accelerate's FSDP2 as `accelerate launch` would set it up, beside the same without it."""
    import torch

    alone = {}
    with run.piece("without"):
        alone |= {method: train(run, method, None)[0] for method in ("held", "rows masked")}
        run.put("without", alone)
    os.environ |= {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
        "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }  # fmt: skip
    for method in ("held", "rows masked"):
        with run.piece(f"FSDP2, {method}"):
            loss, trainer = train(run, method, "sharded")
            found = {"sharded": is_sharded(trainer.model_wrapped), "retain_loss": loss}
            found["engine"] = str(trainer.accelerator.distributed_type)
            folder = str(run.folder / f"saved_{method}")
            trainer.save_model(folder)
            loaded = type(make_case("Llama 135M", True, "cpu").model).from_pretrained(folder).to(run.device)
            found["loaded_loss"] = mean_loss(trainer, loaded)
            away = [abs(found["loaded_loss"] / loss - 1)]
            if method in alone:
                away.append(abs(alone[method] / loss - 1))
            found |= {"relative_differences": away, "tolerance": TOLERANCE, "met": max(away) <= TOLERANCE}
            run.put(f"FSDP2, {method}", found)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train(run: Run, method: str, folder: str | None):
    """The mean loss on retain rows after a few steps, and the trainer."""
    import torch
    from accelerate.state import PartialState

    if folder is not None and not torch.distributed.is_initialized():
        PartialState._reset_state()  # it was settled without the variables of the launcher
    fresh_accelerate()
    case = make_case("Llama 135M", run.toy, run.device)
    trainer = make_trainer(
        method, case.model, case.source, case.task, str(run.folder / (folder or "plain")), examples=16, forget=4,
        steps=STEPS, use_cpu=run.toy, proxy_epochs=0.25, learning_rate=1e-3,
    )  # fmt: skip
    trainer.train()
    return mean_loss(trainer, trainer.model_wrapped), trainer


def is_sharded(model) -> bool:
    """Whether FSDP2 holds all weights; those of a last forward may still lie there as a whole."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return {type(p).__name__ for p in model.parameters()} == {"DTensor"}


def mean_loss(trainer, model) -> float:
    return float(trainer.score(trainer.splits.retain, model).loss.mean())


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
