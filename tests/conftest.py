"""What every test has: no network, one thread, and caches of its own."""

import os
import tempfile

# Read when the libraries are imported, so set before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-unlearn-tests-")

import pytest


@pytest.fixture(scope="session")
def recipe_cache(tmp_path_factory):
    """Originals and twins, shared by the tests of one process: the key holds everything that makes them differ."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path_factory, recipe_cache):
    import torch

    torch.set_num_threads(1)
    monkeypatch.setenv("HF_UNLEARN_CACHE", str(recipe_cache))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def pytest_configure():
    """Every evidence that a run writes in a test is held against the schema."""
    from hf_unlearn.report import evidence as module

    write = module.write_json

    def write_checked(path, content):
        if os.path.basename(path) == module.EVIDENCE:
            assert module.validate(module.plain(content)) == []
        write(path, content)

    module.write_json = write_checked


def pytest_sessionfinish():
    import shutil

    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
