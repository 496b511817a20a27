"""What the documents say is so: snippets run, commands parse, figures stand in the stored results."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from toy import image_rows, image_task, vit

from hf_unlearn.cli import main
from hf_unlearn.commands.init import template
from hf_unlearn.run.checks import check
from hf_unlearn.run.command_arguments import parse_with_own
from hf_unlearn.run.parsing import parse_arguments

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PAPERS = sorted((ROOT / "configs" / "papers").glob("*.yaml"))
QUICK = {"max_steps": 3, "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """An empty folder on Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def toy_case():
    model = vit()
    names = ["zero", "one", "two", "three"]
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    return {
        "model": model,
        "processor": image_task().processor,
        "rows": {"train": image_rows(40), "test": image_rows(24, 1)},
    }


def run_page(page: str, folder: Path, names: dict) -> dict:
    """Blocks that begin with a file's name are written there, the others run one after the other."""
    for code in blocks(page):
        title = re.match(r"# (\w+\.py)\n", code)
        if title:
            (folder / title[1]).write_text(code)
        else:
            exec(compile(code, page, "exec"), names)
    return names


def test_the_examples_of_extending_run(workshop, monkeypatch, capsys):
    import hf_unlearn
    from hf_unlearn.errors import UserError

    quick = hf_unlearn.unlearn
    monkeypatch.setattr(hf_unlearn, "unlearn", lambda *given, **more: quick(*given, **QUICK | more), raising=False)
    names = run_page("extending.md", workshop, toy_case())
    assert names["result"].trainer.method == "neg_grad" and names["result"].trainer.args.ascent == 0.2
    out = capsys.readouterr().out
    assert "neg_grad: 4 of 40 training rows" in out and "confidently wrong: 0" in out and "entropy attack: 0" in out
    assert "Source('stripes', train=64, validation=32, test=32)" in out
    with pytest.raises(UserError, match="`ascent` is 2"):
        sys.modules["neg_grad"].NegGradConfig(ascent=2)
    assert_the_task_refuses_an_empty_wave(names["task"])


def assert_the_task_refuses_an_empty_wave(task):
    from hf_unlearn.errors import RowError

    with pytest.raises(RowError, match="waveform is empty"):
        task.encode({"audio": [[]], "label": [0]}, [7])
    batch = task.collate(task.encode({"audio": [[0.0, 1.0, 2.0], [1.0, 0.0]], "label": [0, 1]}, [0, 1]))
    assert (
        batch["input_values"].shape == (2, 3)
        and batch["input_values"][1, 2] == 0
        and batch["labels"].tolist() == [0, 1]
    )


def test_the_built_in_example_depends_on_its_seed_alone(workshop):
    (code,) = [code for code in blocks("extending.md") if code.startswith("# stripes.py")]
    names: dict = {}
    exec(code, names)
    first, again, other = (names["load"](seed) for seed in (0, 0, 1))
    pixels = [[list(image.getdata()) for image in source.train["image"]] for source in (first, again, other)]
    assert pixels[0] == pixels[1] != pixels[2]
    assert sum(first.train["label"]) == 32


def test_the_examples_of_reading_run(workshop, capsys):
    from hf_unlearn import unlearn

    case = toy_case()
    unlearn(
        case["model"], case["processor"], case["rows"], forget=0.1, method="fine_tune", output_dir="unlearned", **QUICK
    )
    names = run_page("reading_the_evidence.md", workshop, {})
    assert "fine_tune {'kind': 'fraction'" in capsys.readouterr().out and names["figure"].axes
    evidence = names["evidence"]
    listed = re.findall(r"^\| (`.*?`) \|", (DOCS / "reading_the_evidence.md").read_text(), re.M)
    keys = {key for cell in listed for key in re.findall(r"`(\w+)`", cell)}
    assert keys == set(evidence) - {"schema_version"}


def commands() -> list[tuple[str, str]]:
    """Lines of indented blocks: a command at the end of a line may be followed by two spaces and a comment."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        text = re.sub(r"```.*?```", "", text, flags=re.S)
        for line in re.findall(r"^    ((?:hf-unlearn|accelerate|python|make|pip) .*)$", text, re.M):
            found.append((page.name, re.split(r"\s{2,}#", line)[0].strip()))
    return found


def test_there_are_commands():
    assert len(commands()) >= 10
    assert {command.split()[0] for _, command in commands()} >= {"hf-unlearn", "python", "make"}


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_parse(page, command, capsys, monkeypatch, tmp_path):
    """`run.yaml` is the one that `hf-unlearn init` writes."""
    (tmp_path / "run.yaml").write_text(template("text"))
    words = [str(tmp_path / word) if word == "run.yaml" else word for word in shlex.split(command.split(" > ")[0])]
    program, first, *rest = words
    monkeypatch.chdir(ROOT)
    if program == "make":
        assert re.search(rf"^{first}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "python":
        paths = [word for word in (first, *rest) if not word.startswith("-") and ("/" in word)]
        assert paths and all((ROOT / path).exists() for path in paths)
    elif program == "pip":
        assert first == "install"
    else:
        assert program == "hf-unlearn" and parses(first, rest)


def parses(command: str, rest: list[str]) -> bool:
    if command == "train":
        return bool(parse_arguments(rest))
    if command == "evaluate":
        from hf_unlearn.commands.evaluate import EvaluateArguments

        return bool(parse_with_own(EvaluateArguments, command, rest))
    if command == "audit":
        from hf_unlearn.commands.audit import AuditArguments

        return bool(parse_with_own(AuditArguments, command, rest))
    if command == "lira":
        from hf_unlearn.commands.lira import LiraArguments

        return bool(parse_with_own(LiraArguments, command, rest))
    if command == "compare":
        from hf_unlearn.commands.compare import CompareArguments
        from hf_unlearn.run.command_arguments import own_and_rest
        from hf_unlearn.run.contest_plan import read_plan, settle_names

        own, more = own_and_rest(CompareArguments, command, rest)
        plan = read_plan(more)
        return not settle_names(plan, own.methods) and len(plan.names) > 1
    if command == "report":
        return bool(rest) and not [word for word in rest if word.startswith("--") and word != "--output"]
    if command == "init":
        return rest in ([], ["text"], ["llm"], ["images"])
    if command == "demo":
        return rest[:1] == ["llm"] and bool(parse_arguments(rest[1:]))
    return command == "env" and not rest


def test_env_works(capsys):
    assert main(["env"]) == 0 and "torch" in capsys.readouterr().out


def test_the_site_has_every_page():
    """`make docs` builds it; its hook names what lies outside of docs/."""
    nav = re.findall(r"([\w]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(nav) == sorted(path.name for path in DOCS.glob("*.md"))
    spec = importlib.util.spec_from_file_location("site_links", DOCS / "site_links.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = "[`README.md`](../README.md#cite) ![a](../no.png) [the licence](../LICENSE) [Limits](limits.md)"
    assert hook.on_page_markdown(text) == "`README.md` ![a](../no.png) the licence (`LICENSE`) [Limits](limits.md)"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        hook.on_page_markdown("[a](../nowhere.md)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_name_exists(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link
    for name in re.findall(r"`((?:configs|docs|benchmarks|tests|notebooks|hf_unlearn)/[\w./]+\w)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:evaluation|tasks|trainers|data|report)/[\w./]+\.py)`", text):
        assert (ROOT / "hf_unlearn" / name).exists(), name


def test_figures_stand_in_the_stored_results():
    page = (DOCS / "choosing_a_method.md").read_text()
    stored = (ROOT / "benchmarks" / "results" / "quality.md").read_text()
    numbers = re.findall(r"\d+\.\d\d", page.split("## What misses")[1])
    assert numbers
    for number in numbers:
        assert number in stored, number


def test_the_sample_page_is_what_a_run_would_write():
    """Drawn again from its evidence, but for the plots, which are drawn a little otherwise by every matplotlib."""
    from hf_unlearn.report.evidence import read_evidence
    from hf_unlearn.report.html import render_html

    def words(page: str) -> str:
        return re.sub(r"<svg.*?</svg>", "", page, flags=re.S)

    made = render_html(read_evidence(DOCS / "sample"))
    assert words((DOCS / "sample" / "report.html").read_text()) == words(made), (
        "hf-unlearn train --config configs/quickstart.yaml --retrain 4 --output_dir out/sample, and copy its files"
    )


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_papers_configs_are_understood(path, tmp_path):
    arguments = parse_arguments(["--config", str(path), "--output_dir", str(tmp_path / "out")])
    check(arguments)
    assert arguments.trainer.variant == "paper" and arguments.has_recipe
    text = path.read_text()
    assert f"output_dir: out/{path.stem}" in text and text.count("published") >= 5 and "arXiv" in text.splitlines()[0]
    assert f"configs/papers/{path.name}" in (DOCS / "papers.md").read_text()
    from hf_unlearn.methods import get_method

    number = get_method(arguments.run.method).paper["id"].removeprefix("arXiv:")
    assert number in text.splitlines()[0] and f"https://arxiv.org/abs/{number}" in (DOCS / "papers.md").read_text()


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_published_settings_run(path, tmp_path):
    """On a toy, with as few rows and steps as it takes: the values fit together."""
    from dataclasses import fields

    from hf_unlearn import unlearn
    from hf_unlearn.methods import get_method

    values = yaml.safe_load(path.read_text())
    known = {field.name for field in fields(get_method(values["method"]).config_class)} - {"output_dir"}
    options = {key: value for key, value in values.items() if key in known}
    options = {key: float(v) if key in ("learning_rate", "weight_decay") else v for key, v in options.items()}
    options |= QUICK | {"dataloader_num_workers": 0, "method": values["method"]}
    options |= {"noise_rows": 4, "noise_steps": 1} if values["method"] == "unsir" else {}
    case = toy_case()
    forget = ["two"] if "forget_classes" in values else values["forget_fraction"]
    result = unlearn(case["model"], case["processor"], case["rows"], forget=forget, **options)
    assert result.trainer.state.global_step == 3
    if values.get("optim") == "sgd":
        assert result.trainer.optimizer.param_groups[0]["momentum"] == 0.9


def test_published_values():
    """As the papers and their released code have them."""
    papers = {path.stem: yaml.safe_load(path.read_text()) for path in PAPERS}
    salun, unsir = papers["salun_cifar10"], papers["unsir_cifar10"]
    assert float(papers["nabla_tau_cifar10"]["learning_rate"]) == 1e-3 and "alpha" not in papers["nabla_tau_cifar10"]
    assert (salun["saliency"], salun["learning_rate"], float(salun["weight_decay"])) == (0.5, 0.013, 5e-4)
    assert (salun["num_train_epochs"], salun["optim"], salun["optim_args"]) == (10, "sgd", "momentum=0.9")
    assert (unsir["noise_steps"], unsir["noise_learning_rate"], unsir["noise_penalty"]) == (40, 0.1, 0.1)
    assert (unsir["impair_learning_rate"], unsir["repair_learning_rate"], unsir["retain_per_class"]) == (
        0.02,
        0.01,
        1000,
    )
