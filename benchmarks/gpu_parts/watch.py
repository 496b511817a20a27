"""What is seen of a trainer's steps on a device: time, waits of the host for it, FLOPs, and peak memory by phase."""

import statistics
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
# Dense peak rates in FLOP/s, as the maker states them: bf16, and float32 without TF32.
PEAKS = {
    "H100 PCIe": (756e12, 51e12),
    "H100": (989e12, 67e12),
    "H200": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
}
WARM, TIMED, WATCHED = 3, 8, 4  # steps of each kind, one after the other
# Of the schedule, which is left early: what a method measures between its steps comes later.
STEPS = 5 * (WARM + TIMED + WATCHED)


class StepWatch(TrainerCallback):
    """Times steps, from the end of one on the device to the end of the next, loading included; then looks closer at a
    few more. The figures are the median of the times and the least of the waits.

    Args:
        profile: whether one step is profiled, which costs seconds.
    """

    def __init__(self, profile: bool = True):
        self.profile = profile and torch.cuda.is_available()
        self.times: list[float] = []
        self.waits: list[Counter] = []
        self.flops: int | None = None
        self.profiled: dict[str, int] | None = None
        self.memory: dict[str, float] = {}
        self._open: list[Any] = []
        self._ended = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._remember("before the steps")

    def on_train_end(self, args, state, control, **kwargs):
        self._remember("steps")

    def on_step_begin(self, args, state, control, **kwargs):
        at = state.global_step - WARM - TIMED
        if at < 0:
            return
        if at < 2:
            self._watch_waits()
        elif at == 2:
            self._open.append(torch.profiler.profile() if self.profile else nullcontext())
            self._open[-1].__enter__()
        else:
            from torch.utils.flop_counter import FlopCounterMode

            self._open.append(FlopCounterMode(display=False))
            self._open[-1].__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        at = state.global_step - 1 - WARM - TIMED
        if at < 0:
            synchronize()
            now = time.perf_counter()
            if state.global_step > WARM:
                self.times.append(now - self._ended)
            self._ended = now
            return
        watcher = self._open.pop()
        if at < 2:
            set_sync_debug("default")
            watcher.__exit__(None, None, None)
            self.waits.append(Counter(place(w) for w in self._warnings if "synchroniz" in str(w.message)))
        elif at == 2:
            watcher.__exit__(None, None, None)
            if self.profile:
                counts = Counter(event.name for event in watcher.events())
                self.profiled = {name: counts[name] for name in WAITS}
                self.profiled["copies to the host"] = sum(n for name, n in counts.items() if "Memcpy DtoH" in name)
        else:
            watcher.__exit__(None, None, None)
            self.flops = watcher.get_total_flops()
        control.should_training_stop |= at == WATCHED - 1

    def _watch_waits(self):
        self._open.append(warnings.catch_warnings(record=True))
        self._warnings = self._open[-1].__enter__()
        warnings.simplefilter("always")
        set_sync_debug("warn")

    def _remember(self, phase: str) -> None:
        if torch.cuda.is_available():
            self.memory[phase] = round(torch.cuda.max_memory_allocated() / 2**20)
            torch.cuda.reset_peak_memory_stats()

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {"step_ms": round(1e3 * statistics.median(self.times), 3)}
        found["step_ms_range"] = [round(1e3 * value, 3) for value in (min(self.times), max(self.times))]
        found["peak_memory_mb"] = self.memory
        if self.waits:
            least = min(self.waits, key=lambda counter: sum(counter.values()))
            found["waits"] = {"in a step": sum(least.values()), "where": dict(least), "profiler": self.profiled}
        if self.flops is not None:
            found["tflop"] = self.flops / 1e12
        return found


def place(warning: warnings.WarningMessage) -> str:
    """File and line of a wait, without the machine's folders."""
    path = Path(warning.filename)
    return f"{'/'.join(path.parts[-2:])}:{warning.lineno}"


def set_sync_debug(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_rate(card: str, bf16: bool) -> float | None:
    """The maker's dense peak in FLOP/s; `None` for a card that is not in the list."""
    for name, rates in PEAKS.items():
        if name in card:
            return rates[0 if bf16 else 1]
    return None


def product_rate(device: str, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of a large matrix product: what the card gives at best."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    synchronize()
    start = time.perf_counter()
    for _ in range(3):
        a @ b
    synchronize()
    return 3 * 2 * size**3 / (time.perf_counter() - start)
