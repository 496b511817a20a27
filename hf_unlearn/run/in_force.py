"""How a run is spread: launchers do not always do as they are told, so it is said, and what cannot work is refused."""

import importlib.util
import os
from typing import Any

from hf_unlearn.errors import UserError

PRECISION = {"no": "no mixed precision", "bf16": "mixed precision bf16", "fp16": "mixed precision fp16"}


def in_force(trainer: Any) -> str:
    """Processes and their kind, where they compute, what spreads the weights, and the precision."""
    kind = trainer.distributed_state.distributed_type.value
    processes = f"{trainer.world_size}{'' if kind == 'NO' else f' ({kind})'} on {trainer.device.type}"
    precision = str(getattr(trainer, "mixed_precision", "no"))
    return f"{processes}, {sharding(trainer)}, {PRECISION.get(precision, precision)}"


def sharding(trainer: Any) -> str:
    """What spreads weights over processes, as the launcher's environment or the arguments say."""
    if _asked("ACCELERATE_USE_FSDP"):
        return f"sharded by FSDP{os.environ.get('FSDP_VERSION', '1')}"
    if trainer.deepspeed_plugin is not None:
        return f"sharded by DeepSpeed ZeRO-{trainer.deepspeed_plugin.zero_stage}"
    return "not sharded"


def check_sharding() -> None:
    """Raises `UserError` for engines whose weights targets, masks and scoring cannot read, or that are not there."""
    if _asked("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("FSDP version 1 hides the weights from targets and masks: set fsdp_version: 2")
    if not _asked("ACCELERATE_USE_DEEPSPEED"):
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError("DeepSpeed was asked for and the package deepspeed is not installed: pip install deepspeed")
    if _asked("ACCELERATE_DEEPSPEED_ZERO3_INIT"):
        raise UserError("ZeRO-3 would spread weights before anything is measured on them: set zero3_init_flag: false")


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")
