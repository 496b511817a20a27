"""The package as it is installed: its entry points, whatever the environment was made from."""

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from hf_unlearn import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The entry points of `pyproject.toml` are found, as pip leaves them."""
    text = (ROOT / "pyproject.toml").read_text()
    info = tmp_path / "site" / "hf_unlearn_points-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hf_unlearn_points\nVersion: 1.0\n")
    tables = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n((?:\w+ = "[\w.:]+"\n)+)', text, re.M)
    assert len(tables) == 2
    lines = [f"[{group}]\n{points}".replace('"', "") for group, points in tables]
    (info / "entry_points.txt").write_text("\n".join(lines))
    here = {point.name for point in entry_points(group="hf_unlearn.tasks")}
    if not {"image_generation", "text_to_image", "unconditional_image_generation"} <= here:
        monkeypatch.syspath_prepend(info.parent)
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()
