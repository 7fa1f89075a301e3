"""The model carried to another repository by DVC, as its users fetch it, and used there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import REPOSITORY, Clone
from lesionseg.__main__ import main

VERSION = "lesion-segmentation@v1.0.0"  # a tag of this form is how DVC finds a version of an artifact


@pytest.fixture(scope="module")
def published(tiny_run) -> Iterator[Path]:
    """The repository of the tiny run, its results committed beside its branch and tagged as a version of the model."""
    commit = tiny_run.run("git", "stash", "create").stdout.strip()  # the working tree stays as the run left it
    tiny_run.run("git", "tag", "--annotate", "--message=The model", VERSION, commit)
    yield tiny_run.root
    tiny_run.run("git", "tag", "--delete", VERSION)


@pytest.fixture
def elsewhere(tmp_path) -> Clone:
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
        ("get", "{source}", "models/lesion-segmentation", "--rev", VERSION, "--out", "theirs"),
    ],
    ids=lambda fetch: " ".join(fetch[:2]),
)
def test_a_model_fetched_from_the_repository_predicts_as_it_does_at_home(published, elsewhere, tmp_path, fetch):
    elsewhere.dvc(*(word.format(source=published) for word in fetch))
    fetched, home = elsewhere.root / "theirs", published / "models/lesion-segmentation"
    assert contents(fetched) == contents(home)
    assert {"MODEL_CARD.md", "model.safetensors"} <= set(contents(fetched))
    photographs = [str(path) for path in sorted((published / "data/raw/images").iterdir())[:2]]
    for model, output in ((fetched, "there"), (home, "here")):
        call = ["predict", *photographs, "--probabilities", "--model", str(model), "--output", str(tmp_path / output)]
        assert main(call) == 0
    there, here = contents(tmp_path / "there"), contents(tmp_path / "here")
    del there["run.json"], here["run.json"]  # they name the model's path
    assert there == here
    assert len(there) >= 5


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
