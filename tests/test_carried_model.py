"""The model carried to another repository by DVC, as its users fetch it, and used there."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, Clone
from lesionseg.__main__ import main


@pytest.fixture
def elsewhere(tmp_path, tiny_run) -> Clone:
    """An empty repository of someone else's, with DVC."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    other = Clone(root, {})
    other.run("git", "init", "--quiet")
    other.dvc("init", "--quiet")
    return other


@pytest.mark.parametrize(
    "fetch",
    [
        ("artifacts", "get", "{source}", "lesion-segmentation", "--out", "theirs"),
        ("get", "{source}", "models/lesion-segmentation", "--out", "theirs"),
    ],
    ids=lambda fetch: " ".join(fetch[:2]),
)
def test_a_model_fetched_from_the_repository_predicts_as_it_does_at_home(tiny_run, elsewhere, tmp_path, fetch):
    elsewhere.dvc(*(word.format(source=tiny_run.root) for word in fetch))
    fetched, home = elsewhere.root / "theirs", tiny_run.root / "models/lesion-segmentation"
    assert contents(fetched) == contents(home)
    assert {"MODEL_CARD.md", "model.safetensors"} <= set(contents(fetched))
    photographs = [str(path) for path in sorted((tiny_run.root / "data/raw/images").iterdir())[:2]]
    for model, output in ((fetched, "there"), (home, "here")):
        assert main(["predict", *photographs, "--model", str(model), "--output", str(tmp_path / output)]) == 0
    there, here = contents(tmp_path / "there"), contents(tmp_path / "here")
    del there["run.json"], here["run.json"]  # they name the model's path
    assert there == here
    assert len(there) == 3


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_tiny_runs_card_names_its_data(tiny_run):
    card = (tiny_run.root / "models/lesion-segmentation/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "drawn by this project's seeded generator" in card
    assert "ISIC 2018 Challenge" not in card, "only what it was made of"


def test_python_minus_m_is_the_command(tiny_run, tmp_path):
    photograph = min((tiny_run.root / "data/raw/images").iterdir())
    command = [sys.executable, "-m", "lesionseg", "predict", str(photograph), "--output", str(tmp_path / "out")]
    command += ["--model", str(tiny_run.root / "models/lesion-segmentation")]
    found = subprocess.run(command, cwd=REPOSITORY / "src", capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out/lesions.csv").is_file()
