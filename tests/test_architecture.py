"""Who may import whom, how long a file may be, and what a module may be called."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hf_unlearn"
FILES = sorted(PACKAGE.rglob("*.py"))
BESIDE = sorted((PACKAGE.parent / "hf_unlearn_diffusion").rglob("*.py"))  # a package of its own
# Floors from the ground up. A part of the package imports itself and lower floors; type-only imports count.
FLOORS = (
    {"errors", "progress"},
    {"registry"},
    {"exits", "tasks"},
    {"report"},
    {"data", "models", "saliency"},
    {"evaluation", "hub"},
    {"trainers"},
    {"methods"},
    {"api", "run"},
    {"commands"},
    {"train"},
    {"cli"},
)
LEVEL = {part: level for level, floor in enumerate(FLOORS) for part in floor}
MOST_MODULES_AT_THE_ROOT = 8


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it, those for types alone too."""
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
def test_imports_point_downwards(path):
    part = part_of(path).removesuffix(".py")
    if part != "__init__":
        upwards = {other for other in own_parts(path) - {part} if LEVEL[other] >= LEVEL[part]}
        assert not upwards, f"{path.name} imports {', '.join(sorted(upwards))}"
    if part == "report":
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers", "datasets", "peft"}


def test_the_core_does_not_know_the_package_beside_it():
    assert BESIDE and not [path for path in FILES if any("hf_unlearn_diffusion" in name for name in imports(path))]
    light = [path for path in BESIDE if path.stem in ("task", "config", "predictions", "draws", "salun", "nabla_tau")]
    assert len(light) == 6
    for path in light:  # what entry points load where the extra is missing
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert "diffusers" not in ast.unparse(ast.Module(top, [])), path.name


def test_the_listing_explains_itself():
    assert {part_of(path).removesuffix(".py") for path in FILES} - {"__init__"} == set(LEVEL)
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES_AT_THE_ROOT


def module_of(name: str) -> str | None:
    """The module of the package that an import of `name` loads, as far as one is its own file."""
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        path = PACKAGE.joinpath(*parts[1:end])
        if path.with_suffix(".py").is_file():
            return ".".join(parts[:end])
        if (path / "__init__.py").is_file():
            return ".".join([*parts[:end], "__init__"])
    return None


def test_no_ring_of_modules():
    graph = {}
    for path in FILES:
        name = ".".join(("hf_unlearn", *path.relative_to(PACKAGE).with_suffix("").parts))
        own = (module_of(other) for other in imports(path) if other.startswith("hf_unlearn."))
        graph[name] = {other for other in own if other and other != name}
    open_, done = [], set()

    def visit(module):
        assert module not in open_, " → ".join([*open_[open_.index(module) :], module])
        if module not in done:
            open_.append(module)
            for other in sorted(graph.get(module, ())):
                visit(other)
            open_.pop()
            done.add(module)

    for module in sorted(graph):
        visit(module)


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


@pytest.mark.parametrize("path", [*FILES, *BESIDE], ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} is too long"


def test_what_is_light_stays_light():
    """Neither the package nor its reports nor the first words of the command line, nor a push, wait for torch."""
    program = (
        "import sys, hf_unlearn, hf_unlearn.cli, hf_unlearn.report, hf_unlearn.run.parsing; "
        "import hf_unlearn.commands.push, hf_unlearn.commands.cache, hf_unlearn.run.recipe_cache; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "datasets", "peft", "sklearn"}


def test_editors_see_the_names_that_are_imported_when_they_are_used():
    import hf_unlearn

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    shown = {alias.asname: node.module for node in block.body for alias in node.names}
    assert shown == hf_unlearn._HOMES and (PACKAGE / "py.typed").is_file()
    for name in hf_unlearn._HOMES:
        assert getattr(hf_unlearn, name) is not None


def test_the_lowest_versions_are_those_that_are_promised():
    root = PACKAGE.parent
    promised = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)",$', (root / "pyproject.toml").read_text(), re.M))
    tried = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (root / "constraints-lowest.txt").read_text(), re.M))
    for name, version in tried.items():
        assert version.removesuffix(".0").startswith(promised[name].removesuffix(".0")), name
