"""Who may import whom, how long a file may be, and what a module may be called."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hf_unlearn"
FILES = sorted(PACKAGE.rglob("*.py"))
# Folder -> parts of the package that its modules may import. What is not listed here is the top level.
MAY_IMPORT = {
    "tasks": {"errors", "tasks"},
    "data": {"errors", "tasks", "data"},
    "saliency": {"errors", "tasks", "saliency"},
    "noise.py": {"errors", "tasks"},
    "evaluation": {"errors", "tasks", "data", "evaluation", "lora"},
    "report": {"errors", "report"},
    "trainers": {"errors", "tasks", "data", "evaluation", "lora", "trainers", "hub", "saliency", "noise"},
    "lora.py": {"errors", "tasks"},
    "errors.py": set(),
    "progress.py": set(),
    "recipe.py": {"errors", "tasks", "data", "progress"},
    "arguments.py": {"errors", "trainers"},
    "checks.py": {"errors", "arguments", "recipe", "trainers", "hub"},
    "loading.py": {"errors", "arguments", "recipe", "lora", "tasks", "data"},
    "nearby.py": {"tasks", "data", "evaluation"},
    "cli.py": {"errors", "report", "train", "hub", "evaluation_run", "lira_run"},
    "command_arguments.py": {"errors", "arguments"},
    "shadow_plan.py": {"errors"},
    "stress.py": {"data", "evaluation", "progress", "tasks"},
    "hub.py": {"errors", "report", "staging", "handover", "trainers"},
    "staging.py": {"errors", "report", "private_paths"},
    "private_paths.py": {"errors"},
    "handover.py": {"evaluation", "lora", "report", "staging", "trainers"},
    "api.py": {"errors", "lora", "data", "tasks", "trainers", "report", "handover", "hub"},
}

COMMANDS = ("evaluation_run.py", "lira_run.py", "shadow_models.py")  # they know every room, as the pipeline does


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_parts(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("hf_unlearn.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path):
    part = part_of(path)
    if part in MAY_IMPORT:
        assert own_parts(path) <= MAY_IMPORT[part]
    else:
        assert part in ("__init__.py", "pipeline.py", "results.py", "train.py", *COMMANDS)
    if part == "report":
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers", "datasets", "peft"}


def test_tasks_do_not_know_each_other():
    for task in ("image_classification", "text_classification", "causal_lm"):
        others = {"image_classification", "text_classification", "causal_lm"} - {task}
        names = imports(PACKAGE / "tasks" / f"{task}.py")
        assert not [name for name in names if any(f"tasks.{other}" in name for other in others)]


def test_no_module_hides_another():
    """`accelerate launch hf_unlearn/train.py` puts the package's folder first on the path."""
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    ours = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert len(ours) > 10 and not (ours - {"__init__"}) & (taken - {"hf_unlearn"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} is too long"


def test_what_is_light_stays_light():
    """Neither the package nor its reports nor the first words of the command line wait for torch."""
    program = "import sys, hf_unlearn, hf_unlearn.cli, hf_unlearn.report, hf_unlearn.arguments; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "datasets", "peft", "sklearn"}
