"""Part `large`: choosing the salient ones of a billion weights, and a masked optimizer step over them."""

import time

from masked_step import CASES, Masked, Plain
from saliency import METHODS, SHARE, saliencies

from gpu_parts.cases import TOY, VOCABULARY
from gpu_parts.runner import Run

ROUNDS = 5
OPTIMIZERS = ("AdamW fused", "AdamW")


def large(run: Run) -> None:
    """Time and extra peak memory of the package's selection and of the published one; masked and plain steps."""
    sizes = shapes(run.toy)
    run.put("weights", sum(size[0] * (size[1] if len(size) > 1 else 1) for size in sizes.values()))
    kept = {}
    for method in METHODS:
        with run.piece(f"selection, {method}"):
            kept[method] = select(run, method, sizes)
    if len(kept) == len(METHODS):
        run.put("selections agree", len(set(kept.values())) == 1)
    for optimizer in OPTIMIZERS[:1] if run.toy else OPTIMIZERS:
        with run.piece(f"step, {optimizer}"):
            step(run, optimizer, sizes)


def shapes(toy: bool) -> dict[str, tuple[int, ...]]:
    """Of the weights of the Llama of a billion."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gpu_parts.cases import SIZES

    values = SIZES["Llama 1B"][1] | {"vocab_size": VOCABULARY["llama"]}
    values |= TOY | {"num_key_value_heads": 2, "vocab_size": 64} if toy else {}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**values))
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def select(run: Run, method: str, sizes: dict) -> tuple[int, float]:
    """How many weights are kept and the smallest saliency among them; puts time and extra memory."""
    import torch

    from gpu_parts.watch import synchronize

    METHODS[method](saliencies({"small": (1000,)}, 0, run.device), SHARE)  # what is loaded on first use is no cost
    scores = saliencies(sizes, 0, run.device)
    synchronize()
    before = 0 if run.toy else torch.cuda.memory_allocated()
    if not run.toy:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    masks = METHODS[method](scores, SHARE)
    synchronize()
    found = {"seconds": round(time.perf_counter() - start, 4)}
    if not run.toy:
        found["extra_mb"] = round((torch.cuda.max_memory_allocated() - before) / 2**20)
    run.put(f"selection, {method}", found)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return kept, min(float(scores[name][mask.bool()].min()) for name, mask in masks.items() if mask.any())


def step(run: Run, optimizer: str, sizes: dict) -> None:
    """A plain and a masked step of an optimizer, half of the weights selected at random."""
    import torch

    from gpu_parts.runner import empty_cache
    from gpu_parts.watch import synchronize

    generator, found = torch.Generator(run.device).manual_seed(1), {}
    masks = {
        name: torch.empty(size, device=run.device, dtype=torch.bool).bernoulli_(SHARE, generator=generator)
        for name, size in ((name.replace(".", "_"), size) for name, size in sizes.items())
    }
    for kind in (Plain, Masked):
        runs = kind(*CASES[optimizer], masks)
        times = []
        for _ in range(ROUNDS + 2):
            synchronize()
            start = time.perf_counter()
            runs.step()
            synchronize()
            times.append(time.perf_counter() - start)
        found[kind.__name__.lower()] = {
            "step_ms": round(1e3 * sorted(times[2:])[ROUNDS // 2], 3),
            "bytes_per_weight": round(runs.bytes_per_weight(), 3),
        }
        del runs
        if not run.toy:
            empty_cache()
    found["masked_beside_plain"] = round(found["masked"]["step_ms"] / found["plain"]["step_ms"], 3)
    run.put(f"step, {optimizer}", found)
