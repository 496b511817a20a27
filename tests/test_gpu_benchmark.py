"""`benchmarks/gpu.py` waits for a machine with a GPU: here it is run at toy sizes on the CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def runner(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_parts import runner

    return runner


@pytest.mark.slow
def test_all_parts_run_at_toy_sizes_from_anywhere(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--toy", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = json.loads((tmp_path / "toy.json").read_text())["parts"]
    assert list(parts) == ["steps", "runs", "lora", "fsdp", "large"]
    assert {name: part["outcome"] for name, part in parts.items()} == dict.fromkeys(parts, "done")
    found = {name: value for part in parts.values() for name, value in part["found"].items()}
    assert not [name for name, value in found.items() if isinstance(value, dict) and "failed" in value]
    assert found["resume"] == {"repeats_exactly": True, "resumes_exactly": True, "largest_difference": 0.0}
    assert {name for name, value in found.items() if isinstance(value, dict) and value.get("met")} == {
        "bf16", "gradient checkpointing", "torch.compile", "quickstart", "FSDP2, held", "FSDP2, rows masked",
    }  # fmt: skip
    assert found["Llama 135M float32 batch 8, rows masked"]["beside_plain"] > 0 and found["selections agree"]


@pytest.mark.slow
def test_without_a_device_it_says_so(tmp_path):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "--toy" in done.stderr and not list(tmp_path.iterdir())


def test_a_part_that_is_ended_keeps_what_it_had_found(runner, tmp_path):
    def part(run):
        with run.piece("first"):
            run.put("first", 1)
        with run.piece("broken"):
            raise ValueError(f"at\n{run.folder.name}")
        with run.piece("missing"):
            runner.need("json", "no_such_package")
        time.sleep(60)

    start = time.monotonic()
    result = runner.run_part(part, True, 1.5, tmp_path / "part")
    assert time.monotonic() - start < 20 and result["outcome"] == "ended at its limit of 2 seconds"
    found = result["found"]
    assert found["first"] == 1 and found["broken"]["failed"].startswith("ValueError: at part (test_gpu_benchmark.py:")
    assert found["missing"] == {"skipped": "the package no_such_package is not installed"}


@pytest.mark.parametrize(
    "error, outcome", [("skip", "skipped: the package"), ("raise", "failed: KeyError"), ("exit", "broke")]
)
def test_a_part_that_does_not_end_well(runner, tmp_path, error, outcome):
    def part(run):
        if error == "skip":
            runner.need("no_such_package")
        if error == "raise":
            raise KeyError("x")
        os._exit(3)

    assert runner.run_part(part, True, 30, tmp_path / "part")["outcome"].startswith(outcome)
