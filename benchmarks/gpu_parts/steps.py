"""Part `steps`: what a method's step costs beside a plain Trainer step over as many examples."""

from step_setup import make_trainer

from gpu_parts.cases import make_case
from gpu_parts.runner import Run, fresh_accelerate

MODELS = ("ViT-B/16", "BERT-base", "Llama 135M", "Llama 1B")
METHODS = ("plain", "rows", "rows masked", "salun")
TOY_METHODS = ("plain", "rows masked")
# What matters most comes first: the part may be ended by its time limit.
SETTINGS = [("bf16", 32), ("float32", 32), ("bf16", 8), ("float32", 8)]
TOY_SETTINGS = [("float32", 8)]


def steps(run: Run) -> None:
    """Time, share of the peak rate, waits for the device and peak memory with the proxy phase in it, for each model,
    precision, batch and method."""
    import torch

    from gpu_parts.watch import peak_rate, product_rate

    card = "cpu" if run.toy else torch.cuda.get_device_name()
    for dtype in ("bfloat16", "float32"):
        with run.piece(f"{dtype} product"):
            rate = product_rate(run.device, getattr(torch, dtype), 64 if run.toy else 8192)
            peak = peak_rate(card, dtype == "bfloat16")
            run.put(f"{dtype} product", {"tflop_per_second": rate / 1e12, "stated_peak": peak and peak / 1e12})
    for precision, batch in TOY_SETTINGS if run.toy else SETTINGS:
        for model in MODELS[::2] if run.toy else MODELS:
            name = f"{model} {precision} batch {batch}"
            with run.piece(name):
                run.needs(8)
                peak = peak_rate(card, precision == "bf16")
                one_setting(run, name, model, batch, precision, peak)


def one_setting(run: Run, name: str, model: str, batch: int, precision: str, peak: float | None) -> None:
    """All methods on one model in turn, beside the plain step."""
    import torch

    bf16 = precision == "bf16"

    case = make_case(model, run.toy, run.device)
    parameters = sum(p.numel() for p in case.model.parameters())
    run.put(name, {"parameters": parameters, "examples_per_step": batch, "forget": batch // 4})
    plain = None
    for method in TOY_METHODS if run.toy else METHODS:
        with run.piece(f"{name}, {method}"):
            run.needs(5)
            found = watched(run, case, method, batch, bf16, profile=(precision, batch) == SETTINGS[0])
            plain = plain or found["step_ms"]
            found["beside_plain"] = round(found["step_ms"] / plain, 3)
            if peak and "tflop" in found:
                found["flops_utilisation"] = round(1e15 * found["tflop"] / found["step_ms"] / peak, 4)
            run.put(f"{name}, {method}", found)
    assert all(torch.isfinite(p).all() for p in case.model.parameters()), "weights that are not finite"


def watched(run: Run, case, method: str, batch: int, bf16: bool, profile: bool = False, **more) -> dict:
    """The figures of a few steps of `method` on the case's model, which is left changed but unwrapped."""
    from gpu_parts.watch import STEPS, StepWatch

    fresh_accelerate()
    watch = StepWatch(profile)
    watch._remember("of another run")
    if method != "plain":
        more = {"proxy_epochs": 0.25} | more
    trainer = make_trainer(
        method, case.model, case.source, case.task, str(run.folder / "out"), examples=batch, forget=batch // 4,
        steps=STEPS, bf16=bf16, use_cpu=run.toy, callbacks=[watch], **more,
    )  # fmt: skip
    trainer.train()
    figures = watch.figures()
    figures["peak_memory_mb"].pop("of another run", None)
    # The next trainer finds the model as it was made: accelerate leaves one alone that carries its marks.
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        case.model.__dict__.pop(name, None)
    case.model.zero_grad(set_to_none=True)
    return figures
