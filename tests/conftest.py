"""What the pipeline tests share: throwaway copies of the repository, and one run of the tiny pipeline."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tiny_data import Network, trained_network

REPOSITORY = Path(__file__).parents[1]
# A make that a test starts is no part of the make that started the tests: as a part it would print its directories.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)


@dataclass(frozen=True)
class Clone:
    """A throwaway copy of the working tree with a git history and a DVC cache of its own."""

    root: Path
    repository_before: dict[str, bytes]  # the repository's pipeline files when the clone was made

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a command at the top of the clone with this interpreter's tools first on the path."""
        result = subprocess.run(
            command,
            cwd=self.root,
            env=_environment(self.root) | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"{' '.join(command)} exited {result.returncode}:\n{result.stdout}\n{result.stderr}")
        return result

    def dvc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "dvc", *arguments, check=check)


def _environment(root: Path) -> dict[str, str]:
    """The environment of a user in the clone: no settings of the developer, the clone's own git identity."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    dropped = ("GIT_", "DVC_", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
    }
    return kept | identity | {"PATH": path, "HOME": str(root.parent), "DVC_NO_ANALYTICS": "1"}


def pipeline_files(root: Path) -> dict[str, bytes]:
    """Content of the files that a pipeline run rewrites."""
    names = ("params.yaml", "dvc.yaml", "dvc.lock", "metrics/evaluation.json", "metrics/data.json")
    return {name: (root / name).read_bytes() for name in names if (root / name).is_file()}


def clone_repository(root: Path) -> Clone:
    """Copy the working tree (tracked and new files, not the ignored ones) and commit it there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = REPOSITORY / name, root / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    clone = Clone(root, pipeline_files(REPOSITORY))
    clone.run("git", "init", "--quiet", "--initial-branch=main")
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--message=The working tree under test")
    return clone


def overlay(profile: str) -> list[str]:
    """The `-S key=value` arguments of a file in profiles/."""
    lines = (REPOSITORY / "profiles" / profile).read_text(encoding="utf-8").splitlines()
    settings = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [argument for setting in settings for argument in ("-S", setting)]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Clone:
    """A clone in which the tiny pipeline has run, through `dvc exp run` as users run it."""
    clone = clone_repository(tmp_path_factory.mktemp("tiny") / "clone")
    clone.dvc("exp", "run", *overlay("tiny.txt"))
    return clone


@pytest.fixture(scope="session")
def network() -> Network:
    """State and metadata of a small network that has learnt the pictures of tiny_data a little."""
    return trained_network()


@contextmanager
def torch_threads(count: int):
    """Torch with that many threads while the context lasts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread():
    """Torch with one thread: tiny tensors lose more than they win by a second one, most of all on a busy machine."""
    with torch_threads(1):
        yield
