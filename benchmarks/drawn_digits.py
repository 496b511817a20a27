"""Diffusion models of handwritten digits forget one: by class and from prompts, SalUn beside other methods.

    python benchmarks/drawn_digits.py                              # everything: 20 minutes a seed on one core
    python benchmarks/drawn_digits.py --models pixels --seeds 10   # one model, one seed
    python benchmarks/drawn_digits.py --models pixels --seeds 10 --lines SalUn --images 200
    python benchmarks/drawn_digits.py --table                      # what is stored

The recipes are those of `configs/ddpm_digits_salun.yaml` (`pixels`), `configs/latent_digits_salun.yaml` (`prompts`)
and `configs/ddpm_digits_rows.yaml` (`rows`: without classes, a tenth of the images goes, and nothing is drawn); every
method has its own defaults. Of each seed there are an original, two retrained twins, and 40 images of each class from
the same noises under each model. Figures are stored in `benchmarks/results/drawn_digits/`, a file a model and seed,
line by line: a stopped run goes on where it was. With another number of images they have a folder of their own. Needs
the extra `diffusion`.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROWS = "rows"  # the model without classes, which draws nothing that a classifier could be asked about
MODELS = {"pixels": "ddpm_digits_salun.yaml", "prompts": "latent_digits_salun.yaml", ROWS: "ddpm_digits_rows.yaml"}
RESULTS = Path(__file__).parent / "results" / "drawn_digits"
SEEDS = (10, 20, 30)
NOISE = ["--per_device_forget_batch_size", "64", "--retain_target", "noise", "--weight_average", "0"]  # as published
TWINS = 2
IMAGES = 40  # of each class
LORA = ["--use_peft", "--lora_r", "16", "--lora_alpha", "32"]
LINES = {
    "SalUn": ["--method", "diffusion_salun"],
    "SalUn, noise, 4.5 passes": ["--method", "diffusion_salun", *NOISE, "--num_train_epochs", "4.52"],
    "random labels, noise": ["--method", "diffusion_salun", *NOISE, "--num_train_epochs", "4.52", "--saliency", "1"],
    "LoRA, noise": ["--method", "diffusion_salun", *NOISE, "--num_train_epochs", "4.52", *LORA],
    "SalUn, noise, 15 passes": ["--method", "diffusion_salun", *NOISE, "--num_train_epochs", "15"],
    "SalUn, noise, α 0.5": ["--method", "diffusion_salun", *NOISE, "--num_train_epochs", "10", "--alpha", "0.5"],
    "random labels": ["--method", "diffusion_salun", "--saliency", "1"],
    "SalUn, LoRA": ["--method", "diffusion_salun", *LORA],
    "∇τ": ["--method", "diffusion_nabla_tau", "--saliency", "1"],
    "∇τ, nothing leads": ["--method", "diffusion_nabla_tau", "--saliency", "1", "--lead", "none"],
    "concept ablation": ["--method", "concept_ablation", "--saliency", "1"],
    "ESD": ["--method", "esd", "--saliency", "1"],
    "ESD, no kept rows": ["--method", "esd", "--saliency", "1", "--alpha", "0"],
    "fine-tuning": ["--method", "fine_tune", "--saliency", "1"],
}
OF_ROWS = ("∇τ", "fine-tuning")
FIGURES = {  # of the block `drawn`: kind, figure, and whether it is a share
    "drawn as forgotten": ("forgotten_classes", "recognised", True),
    "drawn as asked, kept": ("kept_classes", "recognised", True),
    "Fréchet, unseen": ("kept_classes", "frechet_unseen", False),
    "Fréchet, twins": ("kept_classes", "frechet_twins", False),
}


def run(model: str, seed: int, arguments: list[str], images: int = IMAGES) -> dict:
    """One run of the command; originals and twins come from the cache where they were made before."""
    from hf_unlearn.report.evidence import read_evidence
    from hf_unlearn.train import train

    config = str(ROOT / "configs" / MODELS[model])
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "out")
        given = ["--config", config, "--output_dir", output, "--original_seed", str(seed), "--seed", str(seed)]
        drawn = [] if model == ROWS else ["--generate", str(images)]
        train([*given, "--retrain", str(TWINS), *drawn, "--use_cpu", "true", *arguments])
        return dict(read_evidence(Path(output)))


def complete(model: str, seed: int, lines: tuple[str, ...] = tuple(LINES), images: int = IMAGES) -> None:
    """Run those `lines` of a seed that are not stored yet."""
    path = folder_of(images) / f"{model}_seed{seed}.json"
    asked = {} if model == ROWS else {"class": "3", "images": images}
    result: dict = {"seed": seed, **asked, "twins": TWINS, "lines": {}}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    for line in lines:
        if line in result["lines"] or (model == ROWS and line not in OF_ROWS):
            continue
        evidence = run(model, seed, LINES[line], images)
        result["lines"][line] = row(evidence)
        result["environment"] = evidence["environment"]
        if "drawn" in evidence:
            result["judge"] = evidence["drawn"]["judge"]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False)
        path.with_suffix(".tmp").write_text(text + "\n", encoding="utf-8")
        path.with_suffix(".tmp").replace(path)


def row(evidence: dict) -> dict:
    """The figures of one run that the table shows; of original, unlearned model, twins, and floor."""
    figures = evidence["drawn"]["figures"] if "drawn" in evidence else {}
    found = {name: figures[kind][figure] for name, (kind, figure, _) in FIGURES.items() if kind in figures}
    for split in ("forget", "test"):
        models = {key: evidence["models"][name]["loss"][split] for key, name in _NAMES.items()}
        found[f"{split} loss"] = models | {"floor": evidence["floor"].get(f"{split}_loss")}
    auc = {key: evidence["models"][name]["membership"]["loss_auc"] for key, name in _NAMES.items()}
    cost = evidence["cost"]
    return found | {"AUC": auc, "cost": cost["unlearn_examples"] / cost["retrain_examples"]}


_NAMES = {"original": "original", "unlearned": "unlearned", "twins": "retrained"}


def table(model: str, images: int = IMAGES) -> str:
    """Means over the stored seeds, Markdown: of original, twins and floor (one twin to another), then of each line."""
    results = stored(model, images)
    columns = [*(() if model == ROWS else FIGURES), "forget loss", "test loss", "AUC"]
    head = [f"{name} (%)" if name == "AUC" or FIGURES.get(name, ("", "", False))[2] else name for name in columns]
    lines = [_row(["", *head, "examples", "seeds"]), _row(["---", *["---:"] * (len(columns) + 2)])]
    first = [next(iter(result["lines"].values())) for result in results]
    for title in ("original", "twins", "floor"):
        cells = [_mean([line[name] for line in first], title, name) for name in columns]
        lines.append(_row([title if title != "floor" else "one twin to the others", *cells, "", str(len(first))]))
    for name in LINES:
        known = [result["lines"][name] for result in results if name in result["lines"]]
        if known:
            cells = [_mean([line[column] for line in known], "unlearned", column) for column in columns]
            cost = f"{100 * np.mean([line['cost'] for line in known]):.0f} %"
            lines.append(_row([name, *cells, cost, str(len(known))]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean(found: list[dict], model: str, name: str) -> str:
    values = [each[model] for each in found if each.get(model) is not None]
    if not values:
        return ""
    share = name == "AUC" or FIGURES.get(name, ("", "", False))[2]
    return f"{100 * np.mean(values):.1f}" if share else f"{np.mean(values):.3f}"


def folder_of(images: int) -> Path:
    return RESULTS if images == IMAGES else RESULTS / f"{images}_images"


def stored(model: str, images: int = IMAGES) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder_of(images).glob(f"{model}_seed*.json"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=tuple(LINES))
    parser.add_argument("--images", type=int, default=IMAGES, help="of each class")
    parser.add_argument("--table", action="store_true", help="print what is stored")
    options = parser.parse_args()
    for model in options.models:
        for seed in () if options.table else options.seeds:
            complete(model, seed, options.lines, options.images)
        if stored(model, options.images):
            print(f"{model}\n\n{table(model, options.images)}\n")


if __name__ == "__main__":
    main()
