"""How a run is spread is said, accelerate reads the shipped files, and unfit engines are refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from hf_unlearn.errors import UserError
from hf_unlearn.run.in_force import check_sharding, in_force

FILES = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))
NAMES = ("ACCELERATE_USE_FSDP", "FSDP_VERSION", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_ZERO_STAGE")


@pytest.fixture(autouse=True)
def not_launched(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def trainer(processes: int = 1, kind: str = "NO", device: str = "cpu", precision: str = "no"):
    state = SimpleNamespace(distributed_type=SimpleNamespace(value=kind))
    device = SimpleNamespace(type=device)
    return SimpleNamespace(world_size=processes, distributed_state=state, device=device, mixed_precision=precision)


def test_what_is_in_force_is_said(monkeypatch):
    assert in_force(trainer()) == "1 on cpu, not sharded, no mixed precision"
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


@pytest.mark.parametrize(
    "env, told",
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version: 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero_stage: 2"),
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
