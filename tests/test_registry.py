"""Methods and tasks from outside: as a class, as `module:Class`, and from an installed package."""

import sys

import numpy as np
import pytest
import tiny
from toy import SETUPS

from hf_unlearn import registry
from hf_unlearn.cli import main
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.methods import METHODS, get_method, method_names
from hf_unlearn.methods.npo import NPOTrainer
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.tasks import TASKS, get_task, task_for, task_names

METHOD = """
from dataclasses import dataclass, field
import torch.nn.functional as F
from hf_unlearn import UnlearningConfig, UnlearningTrainer

@dataclass
class Config(UnlearningConfig):
    softness: float = field(default=0.1, metadata={"help": "Inverse temperature."})

class Trainer(UnlearningTrainer):
    '''L = −(2/β)·log σ(β(S − S₀)) + L_r.'''
    config_class = Config
    method = "outside_npo"

    def reference_rows(self):
        return {"forget": self.splits.forget}

    def unlearning_loss(self, forget, retain):
        ratio = forget.log_prob - self.reference("forget", forget.index).log_prob
        beta = self.args.softness
        return forget.mean(-2 / beta * F.logsigmoid(-beta * ratio)) + retain.mean(retain.loss)

class Clashing(UnlearningTrainer):
    @dataclass
    class config_class(UnlearningConfig):
        task: str = "mine"
    method = "clashing"
"""
TASK = """
from hf_unlearn.tasks.text_classification import TextClassification

class Rhymes(TextClassification):
    name = "rhymes"
    roles = (*TextClassification.roles, "rhyme")

    @classmethod
    def serves(cls, model):
        return False
"""
FIGURES = """
from hf_unlearn.evaluation.attacks import threshold_attack

def doubt(scores):
    return {f"{name}_doubt": float(1 - s.confidence.mean()) for name, s in scores.items() if name != "nonmembers"}

def entropy(scores, seed=0):
    return threshold_attack(-scores["forget"].entropy, -scores["nonmembers"].entropy, seed)

def nonsense(scores):
    return 7
"""
ENTRY_POINTS = """[hf_unlearn.methods]
outside_npo = outside_package:Trainer
clashing = outside_package:Clashing
broken = outside_package:Nothing

[hf_unlearn.tasks]
rhymes = outside_package_task:Rhymes

[hf_unlearn.metrics]
doubt = outside_package_figures:doubt

[hf_unlearn.attacks]
entropy_of_outside = outside_package_figures:entropy
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package in a folder of installed ones, as pip leaves it."""
    site = tmp_path / "site"
    info = site / "outside_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "outside_package.py").write_text(METHOD)
    (site / "outside_package_task.py").write_text(TASK)
    (site / "outside_package_figures.py").write_text(FIGURES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(site)
    yield site
    registry._entry_points.cache_clear()
    for name in ("outside_package", "outside_package_task", "outside_package_figures"):
        sys.modules.pop(name, None)


def test_a_method_of_an_installed_package_runs_from_the_command_line(installed, tmp_path, capsys):
    config = tiny.own_data(tmp_path, "causal_lm", method="outside_npo", softness=0.2, max_steps=2)
    config.pop("proxy_epochs")
    assert main(["train", "--config", tiny.write_config(tmp_path, config)]) == 0, capsys.readouterr().err
    evidence = (tmp_path / "out" / "evidence.json").read_text()
    assert '"outside_npo"' in evidence and '"softness": 0.2' in evidence
    assert "outside_npo" in method_names() and "outside_npo" not in METHODS
    with pytest.raises(SystemExit):
        main(["train", "--method", "outside_npo", "--help-all"])
    assert "--softness" in capsys.readouterr().out


def test_a_task_of_an_installed_package_brings_its_columns(installed):
    assert get_task("rhymes").name == "rhymes" and {*TASKS, "rhymes"} <= set(task_names())
    arguments = parse_arguments(["--task", "rhymes", "--rhyme_column", "end", "--label_column", "intent"])
    assert arguments.data.columns == {"rhyme": "end", "label": "intent"}
    assert task_for(SETUPS["text"]()[0]).name == "text_classification"
    with pytest.raises(UserError, match="unknown argument --rhyme_column"):
        parse_arguments(["--task", "text_classification", "--rhyme_column", "end"])


def test_a_class_or_its_address_is_a_method(installed, tmp_path, monkeypatch):
    assert get_method(NPOTrainer) is NPOTrainer
    assert get_method("hf_unlearn.methods.npo:NPOTrainer") is NPOTrainer
    assert parse_arguments(["--method", "outside_package:Trainer", "--softness", "1"]).trainer.softness == 1
    (tmp_path / "lying_here.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert get_method("lying_here:Trainer").method == "outside_npo"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("outside_np", "did you mean outside_npo"),
        ("nowhere:Trainer", "cannot be loaded: No module named 'nowhere'"),
        ("outside_package:Nothing", "has no attribute 'Nothing'"),
        ("broken", "cannot be loaded"),
        ("outside_package:Config", "is no subclass of UnlearningTrainer"),
        ("json:dumps", "is no subclass of UnlearningTrainer"),
        (int, "is no subclass of UnlearningTrainer"),
        ("clashing", "has a field 'task'"),
    ],
)
def test_what_is_no_method_is_refused_in_one_line(installed, name, said):
    with pytest.raises(UserError) as refused:
        get_method(name) if name != "clashing" else parse_arguments(["--method", name])
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_name_that_two_packages_register_is_refused(installed, tmp_path, monkeypatch):
    other = tmp_path / "other" / "twice-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: twice\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[hf_unlearn.methods]\noutside_npo = elsewhere:Trainer\nnpo = nowhere:X\n")
    monkeypatch.syspath_prepend(other.parent)
    with pytest.raises(UserError, match="registered by two packages"):
        get_method("outside_npo")
    assert get_method("npo") is NPOTrainer  # the package's own names are taken


def test_metrics_and_attacks_of_an_installed_package_stand_in_the_evidence(installed):
    from hf_unlearn.evaluation.attack_comparison import compare_attacks
    from hf_unlearn.evaluation.comparison import compare
    from hf_unlearn.evaluation.logged_metrics import choose

    def model(level):
        loss = np.linspace(0.1, level, 24)
        split = SplitScores(loss, -loss, (loss < 1) * 1.0, np.exp(-loss), loss / 2, loss, np.zeros(24))
        return {"forget": split, "retain": split, "test": split, "nonmembers": split}

    found = compare(model(2), model(1), [model(1), model(3)])["models"]
    doubts = [found[name]["further"]["forget_doubt"] for name in ("original", "unlearned", "retrained")]
    assert doubts[1] < doubts[2] < 1 and doubts[0] == pytest.approx(1 - np.exp(-np.linspace(0.1, 2, 24)).mean())
    figures = compare_attacks(None, model(1), [model(2)])["figures"]
    assert figures["entropy of outside: AUC"]["unlearned"]["value"] == pytest.approx(0.5)
    assert figures["entropy of outside: AUC"]["original"] is None
    (metric,) = choose(["outside_package_figures:doubt"])
    assert metric(model(2))["test_doubt"] == pytest.approx(doubts[0])
    with pytest.raises(UserError, match="`metric` json:JSONDecoder is no function"):
        choose(["json:JSONDecoder"])
    points = installed / "outside_package-1.0.dist-info" / "entry_points.txt"
    points.write_text("[hf_unlearn.metrics]\nbad = outside_package_figures:nonsense\n")
    registry._entry_points.cache_clear()
    with pytest.raises(UserError, match="`metric` bad does not return numbers by name"):
        compare(None, model(1), [])
