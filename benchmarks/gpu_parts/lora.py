"""Part `lora`: adapters on a model of a billion weights and of eight, and the eight in four bits."""

from gpu_parts.cases import make_case
from gpu_parts.runner import Run, Skip, need

RANK = 16
# Name, weights in memory, examples of a step. A target per row would take a proxy, a second model: one τ instead.
MODELS = (("Llama 1B", "float32", 32), ("Llama 8B", "bfloat16", 8))


def lora(run: Run) -> None:
    """Step time and peak memory of ∇τ through an adapter, beside a plain Trainer step through the same adapter."""
    need("peft")
    for name, dtype, batch in MODELS[:1] if run.toy else MODELS:
        with run.piece(f"{name}, {dtype} weights"):
            run.needs(15)
            one_model(run, name, dtype, batch)
    with run.piece("Llama 8B, 4-bit weights"):
        four_bits()


def one_model(run: Run, name: str, dtype: str, batch: int) -> None:
    from gpu_parts.steps import watched
    from hf_unlearn.models.lora import add_lora

    case = make_case(name, run.toy, run.device, dtype)
    case.model = add_lora(case.model, r=RANK, alpha=2 * RANK, dropout=0.0, task_type=case.task.peft_task_type)
    trained = sum(p.numel() for p in case.model.parameters() if p.requires_grad)
    run.put(f"{name}, {dtype} weights", {"trainable": trained, "examples_per_step": batch})
    plain = None
    for method in ("plain", "held"):
        found = watched(run, case, method, batch, bf16=not run.toy)
        plain = plain or found["step_ms"]
        found["beside_plain"] = round(found["step_ms"] / plain, 3)
        run.put(f"{name}, {dtype} weights, {method}", found)


def four_bits() -> None:
    need("bitsandbytes")
    raise Skip("weights in four bits cannot be trained over by this version of hf_unlearn")
