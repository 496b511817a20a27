"""YAML values are defaults, the command line overrides them, and nothing is guessed."""

import pytest

from hf_unlearn.errors import UserError
from hf_unlearn.run.parsing import parse_arguments


def parse(tmp_path, text: str, *argv: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return parse_arguments(["--config", str(path), *argv])


def test_yaml_values_have_the_types_of_their_fields(tmp_path):
    text = """
learning_rate: 1e-4
num_train_epochs: 2
eval_strategy: no
save_strategy: no
report_to: [none]
cache_rows: "false"
forget_classes: [3, cat]
lora_target_modules: q_proj
seed: 7
use_peft: yes
dry_run:
"""
    arguments = parse(tmp_path, text)
    assert arguments.trainer.learning_rate == 1e-4 and arguments.trainer.num_train_epochs == 2.0
    assert arguments.trainer.eval_strategy == "no" and arguments.trainer.save_strategy == "no"
    assert arguments.trainer.report_to == [] and arguments.trainer.seed == 7
    assert arguments.data.cache_rows is False and arguments.lora.use_peft is True and arguments.run.dry_run is False
    assert arguments.request.forget_classes == ["3", "cat"] and arguments.lora.lora_target_modules == ["q_proj"]


def test_the_command_line_overrides_yaml(tmp_path):
    text = "seed: 1\ncache_rows: true\nforget_classes: [a]\noriginal:\n  learning_rate: 1e-3\n  batch_size: 8\n"
    argv = ["--seed", "2", "--no_cache_rows", "--forget_classes", "b", "c", "--original_batch_size", "4"]
    arguments = parse(tmp_path, text, *argv)
    assert arguments.trainer.seed == 2 and arguments.data.cache_rows is False
    assert arguments.request.forget_classes == ["b", "c"]
    assert arguments.recipe.original_learning_rate == 1e-3 and arguments.recipe.original_batch_size == 4


def test_rows_on_the_command_line_take_the_place_of_those_of_yaml(tmp_path):
    text = "train_file: a.csv\ntest_file: b.csv\nforget_ids: ids.txt\nid_column: id\n"
    arguments = parse(tmp_path, text, "--forget_file", "f.csv", "--retain_file", "r.csv")
    assert arguments.data.train_file is None and arguments.data.test_file == "b.csv"
    assert arguments.request.forget_ids is None and arguments.data.retain_file == "r.csv"
    arguments = parse(tmp_path, text, "--dataset_name", "digits")
    assert arguments.data.train_file is None and arguments.data.test_file is None
    arguments = parse(tmp_path, "dataset_name: digits\ntest_split: held_out\n", "--train_file", "a.csv")
    assert arguments.data.dataset_name is None and arguments.data.test_split is None


def test_the_recipe_block(tmp_path):
    text = "original:\n  model_type: vit\n  model_config:\n    hidden_size: 8\n    layer_norm_eps: 1e-6\n"
    arguments = parse(tmp_path, text)
    assert arguments.has_recipe and arguments.recipe.original_model_type == "vit"
    assert arguments.recipe.original_model_config == '{"hidden_size": 8, "layer_norm_eps": "1e-6"}'


def test_a_twin_does_not_share_its_seed_with_the_run(tmp_path):
    """Whose proxy would start from the same fresh weights."""
    for seed, expected in ((42, [11, 12, 13]), (12, [11, 13, 14]), (11, [12, 13, 14]), (10, [11, 12, 13])):
        arguments = parse(tmp_path, "method: salun", "--original_seed", "10", "--seed", str(seed))
        assert [arguments.twin_seed(k) for k in (1, 2, 3)] == expected


def test_defaults_depend_on_the_method(tmp_path):
    assert parse(tmp_path, "method: salun").trainer.per_device_train_batch_size == 16
    assert parse(tmp_path, "method: salun", "--method", "fine_tune").trainer.per_device_train_batch_size == 64
    assert parse_arguments([]).run.method == "nabla_tau"
    for method in ("nabla_tau", "salun"):  # two configs among the bases: neither hides the other's defaults
        values = parse(tmp_path, f"method: {method}").trainer
        assert values.num_train_epochs is None and values.max_grad_norm == 1.0 and values.lr_scheduler_type == "linear"


@pytest.mark.parametrize(
    "text, message",
    [
        ("forget_fractoin: 0.1", "unknown key 'forget_fractoin'; did you mean forget_fraction?"),
        ("original:\n  lerning_rate: 1", "unknown key 'lerning_rate' in the recipe (original); did you mean learning"),
        ("original: vit", "'original' must be a block"),
        ("original_learning_rate: fast", "the value of 'original_learning_rate' is no number"),
        ("seed: 1.5", "the value of 'seed' is no whole number"),
        ("seed: true", "the value of 'seed' is no whole number"),
        ("learning_rate: [1, 2]", "'learning_rate' takes one value, not a list"),
        ("forget_fraction: {a: 1}", "the value of 'forget_fraction' is no number"),
        ("use_peft: perhaps", "the value of 'use_peft' is no true or false"),
        ("forget_classes: []", "'forget_classes' is an empty list"),
        ("dtype: int8", "'dtype: int8' is not one of auto, float32"),
        ("variant: best", "'variant: best' is not one of rows, tokens, held, paper"),
        ("lr_scheduler_type: zigzag", "'lr_scheduler_type: zigzag' is not one of"),
        ("method: nabla", "unknown `method` 'nabla'; did you mean nabla_tau?"),
        ("method: [1]", "unknown `method`"),
        ("warmup_steps: -1", "`warmup_steps` is -1.0; give 0 or more"),
        ("alpha: 3", "`alpha` is 3.0; it must lie in (0, 1]"),
        ("learning_rate: 0", "`learning_rate` is 0.0"),
        ("- a\n- b", "holds no lines of the form key: value"),
        ("a: [", "is not valid YAML (line"),
        ("", "holds no"),
    ],
)
def test_refused_yaml(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        parse(tmp_path, text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--forget_fractoin", "0.1"], "unknown argument --forget_fractoin; did you mean --forget_fraction?"),
        (["--forget-fractoin=0.1"], "did you mean --forget_fraction?"),
        (["--zzzzzz", "1"], "unknown argument --zzzzzz; see --help-all"),
        (["--seed"], "expected one argument"),
        (["--seed", "one"], "invalid int value"),
        (["--dtype", "int8"], "invalid choice"),
        (["stray"], "a value follows no argument"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--config"], "expected one argument"),
        (["--report_to", "none", "--hub_strategy", "every_save"], "`hub_strategy` is 'end' here"),
    ],
)
def test_refused_command_lines(argv, message):
    with pytest.raises(UserError) as error:
        parse_arguments(argv)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_arguments_beside_the_program_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "prog.args").write_text("--seed 5")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "prog.py")])
    assert parse_arguments().trainer.seed == 42


def test_the_home_folder_of_a_file_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "model_name_or_path: ~/model\nreference_model: [~/a, b]\noutput_dir: ~/out\ncache_dir: ~/cache\n"
    arguments = parse(tmp_path, text)
    assert arguments.model.model_name_or_path == str(tmp_path / "model")
    assert arguments.recipe.reference_model == [str(tmp_path / "a"), "b"]
    assert (arguments.trainer.output_dir, arguments.recipe.cache_dir) == (f"{tmp_path}/out", f"{tmp_path}/cache")
