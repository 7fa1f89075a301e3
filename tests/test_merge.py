"""`make merge` and `make accept`, through git and DVC, on a pipeline of two stages that runs at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  first:
    cmd: python src/first.py
    deps: [src/first.py]
    params: [first]
    metrics: [{metrics/first.json: {cache: false}}]
  second:
    cmd: python src/second.py
    deps: [src/second.py]
    params: [second]
    metrics: [{metrics/second.json: {cache: false}}]
  third:
    cmd: python src/third.py
    deps: [src/third.py, metrics/first.json, metrics/second.json]
    metrics: [{metrics/third.json: {cache: false}}]
"""
STAGE = """\
import json, yaml
from pathlib import Path
Path("metrics").mkdir(exist_ok=True)
Path("metrics/NAME.json").write_text(json.dumps({"x": yaml.safe_load(open("params.yaml"))["NAME"]["x"]}))
"""
THIRD = """\
import json
x = [json.load(open(f"metrics/{name}.json"))["x"] for name in ("first", "second")]
json.dump({"x": sum(x)}, open("metrics/third.json", "w"))
"""


class Repository:
    def __init__(self, root: Path, environment: dict):
        self.root, self.environment = root, environment

    def __call__(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        found = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"
        return found

    def git(self, *arguments: str, check: bool = True):
        return self("git", *arguments, check=check)

    def dvc(self, *arguments: str):
        return self(sys.executable, "-m", "dvc", *arguments)

    def tool(self, name: str, *arguments: str, check: bool = True):
        return self(sys.executable, str(REPOSITORY / "tools" / f"{name}.py"), *arguments, check=check)

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        (self.root / path).write_text(text.replace(old, new), encoding="utf-8")

    def run(self, branch: str, path: str, old: str, new: str) -> None:
        """A branch off main that makes a change, runs the pipeline and commits."""
        self.git("checkout", "--quiet", "-B", branch, "main")
        self.change(path, old, new)
        self.dvc("repro")
        self.git("commit", "--quiet", "--all", "--message", branch)

    def metric(self, name: str) -> int:
        return json.loads((self.root / f"metrics/{name}.json").read_text(encoding="utf-8"))["x"]


@pytest.fixture
def repository(tmp_path) -> Repository:
    from conftest import _environment

    repository = Repository(tmp_path / "clone", _environment(tmp_path / "clone"))
    files = {
        "dvc.yaml": PIPELINE,
        "params.yaml": "first:\n  x: 1\n\n\n\nsecond:\n  x: 10\n",
        "profiles/tiny.txt": "# tiny\nfirst.x=2\n",
        ".gitattributes": (REPOSITORY / ".gitattributes").read_text(encoding="utf-8"),
        "src/third.py": THIRD,
        **{f"src/{name}.py": STAGE.replace("NAME", name) for name in ("first", "second")},
    }
    for name, text in files.items():
        path = repository.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.dvc("init", "--quiet")
    repository.dvc("repro")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message=start")
    return repository


def test_a_merge_of_two_runs_ends_consistent(repository):
    """One side ran `first`, the other `second`, both `third`: only `third` runs again."""
    repository.run("left", "params.yaml", "x: 10", "x: 20")
    repository.run("right", "params.yaml", "x: 1\n", "x: 5\n")
    assert repository.git("merge", "left", check=False).returncode != 0
    printed = repository.tool("merge").stdout
    assert "merge: first: ours" in printed
    assert "merge: second: theirs" in printed
    assert [line for line in printed.splitlines() if line.startswith("Running stage")] == ["Running stage 'third':"]
    assert [repository.metric(name) for name in ("first", "second", "third")] == [5, 20, 25]
    repository.git("commit", "--quiet", "--no-edit")
    assert "gate: dvc.lock belongs" in repository.tool("gate").stdout
    assert repository.git("status", "--porcelain").stdout == ""


def test_parameters_in_conflict_are_left_to_a_person(repository):
    repository.run("left", "params.yaml", "x: 10", "x: 20")
    repository.run("right", "params.yaml", "x: 10", "x: 30")
    repository.git("merge", "left", check=False)
    refused = repository.tool("merge", check=False)
    assert refused.returncode == 1
    assert "resolve these first, and `git add` them: params.yaml" in refused.stderr
    repository.git("checkout", "--theirs", "params.yaml")
    repository.git("add", "params.yaml")
    repository.tool("merge")
    assert repository.metric("third") == 21
    assert "gate: dvc.lock belongs" in repository.tool("gate").stdout


def test_without_a_merge_it_says_so(repository):
    assert "no merge is under way" in repository.tool("merge", check=False).stderr


def test_the_gate_names_what_was_changed_by_hand_or_is_missing(repository):
    path = repository.root / "metrics/third.json"
    path.write_text("{}", encoding="utf-8")
    assert "metrics/third.json: changed by hand" in repository.tool("gate", check=False).stdout
    path.unlink()
    missing = repository.tool("gate", check=False)
    assert missing.returncode == 1
    assert "metrics/third.json: missing" in missing.stdout


def test_a_comment_is_accepted_without_a_run(repository):
    repository.change("src/first.py", "import json", "# a comment\nimport json")
    assert repository.tool("gate", check=False).returncode == 1
    assert "now has the code of first" in repository.tool("accept").stdout
    assert "gate: dvc.lock belongs" in repository.tool("gate").stdout


def test_after_a_commit_the_old_code_is_named_by_its_branch(repository):
    repository.git("checkout", "--quiet", "-b", "topic")
    repository.change("src/first.py", "import json", "# a comment\nimport json")
    repository.git("commit", "--quiet", "--all", "--message=a comment")
    assert "found no commit `mian`" in repository.tool("accept", "mian", check=False).stderr
    assert "now has the code of first" in repository.tool("accept", "main").stdout
    assert "gate: dvc.lock belongs" in repository.tool("gate").stdout


def test_a_change_that_alters_results_is_refused(repository):
    repository.change("src/first.py", '["x"]}', '["x"] * 3}')
    refused = repository.tool("accept", check=False)
    assert refused.returncode == 1
    assert "metrics/first.json" in refused.stderr
    assert repository.tool("gate", check=False).returncode == 1


def test_a_changed_parameter_is_not_accepted(repository):
    repository.change("params.yaml", "x: 10", "x: 11")
    assert "more than code changed" in repository.tool("accept", check=False).stderr
