"""How a run is spread is said, accelerate reads the shipped files, and unfit engines are refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from hf_unlearn.errors import UserError
from hf_unlearn.run.in_force import check_sharding, in_force

FILES = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))
NAMES = ("ACCELERATE_USE_FSDP", "FSDP_VERSION", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_ZERO3_INIT")


@pytest.fixture(autouse=True)
def not_launched(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def trainer(processes: int = 1, kind: str = "NO", device: str = "cpu", precision: str = "no", zero: int = 0):
    plugin = SimpleNamespace(zero_stage=zero) if zero else None
    state = SimpleNamespace(distributed_type=SimpleNamespace(value=kind))
    device = SimpleNamespace(type=device)
    return SimpleNamespace(
        world_size=processes,
        distributed_state=state,
        device=device,
        mixed_precision=precision,
        deepspeed_plugin=plugin,
    )


def test_what_is_in_force_is_said(monkeypatch):
    assert in_force(trainer()) == "1 on cpu, not sharded, no mixed precision"
    said = in_force(trainer(2, "DEEPSPEED", "cuda", "bf16", zero=3))
    assert said == "2 (DEEPSPEED) on cuda, sharded by DeepSpeed ZeRO-3, mixed precision bf16"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    said = in_force(trainer(2, "FSDP", "cuda", "bf16"))
    assert said == "2 (FSDP) on cuda, sharded by FSDP2, mixed precision bf16"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_the_shipped_files(path):
    text = path.read_text()
    assert text.startswith("# ") and f"configs/accelerate/{path.name} -m hf_unlearn.train" in text
    found = ClusterConfig.from_yaml_file(str(path))  # raises for a key that it does not know
    assert found.num_machines == 1 and found.num_processes == (1 if path.stem == "one_process" else 2)


def test_the_launcher_asks_for_what_the_files_say(monkeypatch):
    asked = {}
    for path in FILES:
        arguments = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
        arguments, _, _ = _validate_launch_command(arguments)
        asked[path.stem] = arguments
    assert asked["ddp"].multi_gpu and not asked["ddp"].use_fsdp and not asked["one_process"].multi_gpu
    env = prepare_multi_gpu_env(asked["fsdp2"])
    for name in NAMES[:2]:
        monkeypatch.setenv(name, env[name])
    check_sharding()
    assert env["FSDP_VERSION"] == "2" and "FSDP2" in in_force(trainer(2, "FSDP"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for stage in (2, 3):
        assert asked[f"zero{stage}"].use_deepspeed
        asked[f"zero{stage}"].deepspeed_fields_from_accelerate_config = ""
        _, env = prepare_deepspeed_cmd_env(asked[f"zero{stage}"])
        assert env["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage) and env["ACCELERATE_GRADIENT_CLIPPING"] == "auto"
        assert env["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
        for name in NAMES[2:]:
            monkeypatch.setenv(name, env.get(name, ""))
        check_sharding()


@pytest.mark.parametrize(
    "env, told",
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version: 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}, "zero3_init_flag: false"),
    ],
)
def test_engines_that_hide_the_weights_are_refused(monkeypatch, env, told):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told):
        check_sharding()


def test_a_missing_engine_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match="pip install deepspeed"):
        check_sharding()
