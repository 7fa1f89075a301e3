"""The commands of docs/team.md and docs/data-own.md, through DVC: own data with the queue's copies, a remote, a
teammate's clone; what is repeated runs nothing."""

import json
import re
import shutil
import time
from dataclasses import dataclass

import numpy as np
import pytest
import requests
import yaml
from PIL import Image

from conftest import REPOSITORY, Clone, clone_repository, overlay

PAGE = REPOSITORY / "docs/team.md"
SLOW = pytest.mark.slow
PATIENCE = 900  # seconds that queued experiments may take

OWN = ["-S", "download.source=folder", "-S", "download.folder=data/mine", "-S", "train.epochs=1"]


def ran(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """A repository whose run is of own data, and a remote beside it that holds everything."""
    folder = tmp_path_factory.mktemp("team")
    clone = clone_repository(folder / "clone")
    random = np.random.default_rng(0)
    mine = clone.root / "data/mine"
    mine.mkdir(parents=True)
    for number in range(14):
        pixels = random.integers(60, 250, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(mine / f"p{number}.jpg")
        mask = np.zeros((80, 80), np.uint8)
        mask[10 + number : 50 + number, 20:60] = 255
        Image.fromarray(mask).save(mine / f"p{number}_mask.png")
    clone.run("python", "tools/own.py", "data/mine")
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--message=Own data")
    clone.dvc("exp", "run", "--temp", *overlay("tiny.txt"), *OWN)
    clone.dvc("exp", "run", *overlay("tiny.txt"), *OWN)
    clone.dvc("remote", "add", "--default", "store", str(folder / "store"))
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--message=A run of own data")
    clone.dvc("push", "--run-cache")
    return clone


def clone_of(team: Clone, target) -> Clone:
    team.run("git", "clone", "--quiet", ".", str(target))
    return Clone(target, {})


def sections() -> dict[str, list[str]]:
    """Heading of docs/team.md -> the lines under it that are commands."""
    found = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return {heading: lines for heading, lines in found.items() if lines}


@dataclass
class Members:
    """Two who work on one repository, after a tiny run that the first has committed."""

    first: Clone
    teammate: Clone

    def follow(self, line: str) -> str:
        """Run a command of the page as one of them would; what it printed."""
        command, _, comment = line.partition("  #")
        command = command.strip().replace("/mnt/store/lesionseg", str(self.first.root.parent / "store"))
        command = re.sub("^make ", "make --old-file=env ", command)  # in the environment of this test
        command = re.sub("^lesionseg ", "python -m lesionseg ", command)  # with the code of the clone
        if "<name>" in command or " A B" in command:
            name, other = self.first.dvc("exp", "list", "--name-only").stdout.split()[:2]
            command = command.replace("<name>", name).replace(" A B", f" {name} {other}")
        clone = self.teammate if "a teammate" in comment else self.first
        source = {"PYTHONPATH": str(clone.root / "src")}
        return clone.run("bash", "-c", command, **source).stdout


@pytest.fixture
def members(tiny_run, tmp_path) -> Members:
    first = Clone(tmp_path / "first", {})
    shutil.copytree(tiny_run.root, first.root, symlinks=True)
    first.run("git", "add", "--all")
    first.run("git", "commit", "--quiet", "--message=A tiny run")
    first.run("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin"))
    first.run("git", "remote", "add", "origin", str(tmp_path / "origin"))
    first.run("git", "fetch", "--quiet", "origin")
    first.run("git", "clone", "--quiet", str(tmp_path / "origin"), str(tmp_path / "teammate"))
    return Members(first, Clone(tmp_path / "teammate", {}))


def share(members: Members) -> None:
    """A remote that both know, with all data."""
    for line in sections()["Share data and models"][:3]:
        members.follow(line)
    members.first.run("git", "push", "--quiet", "origin", "main")
    members.teammate.run("git", "pull", "--quiet", "origin", "main")


def repeat(clone: Clone, branch: str, parameter: str) -> None:
    """A branch off main on which a parameter changed and the pipeline ran."""
    clone.run("git", "checkout", "--quiet", "-b", branch, "main")
    clone.dvc("exp", "run", "-S", parameter)
    clone.run("git", "commit", "--quiet", "--all", f"--message={branch}")


def test_every_section_of_the_page_is_followed():
    followed = {
        "Share data and models", "On S3", "Experiments and the queue", "Compare", "Pull requests", "Merges",
        "Changes that cannot alter a result", "Disk", "From another repository",
    }  # fmt: skip
    assert set(sections()) == followed


def test_sharing_data_and_models(members):
    lines = sections()["Share data and models"]
    share(members)
    for line in lines[3:]:
        members.follow(line)
    assert ran(members.teammate.dvc("repro").stdout) == []


@pytest.fixture
def bucket(monkeypatch):
    """Address of an S3 server on loopback that holds an empty bucket, named `bucket` as in the page."""
    pytest.importorskip("dvc_s3", reason='needs pip install ".[s3]"')
    server = pytest.importorskip("moto.server", reason='needs pip install ".[s3-server]"')
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "us-east-1" if name.endswith("REGION") else "testing")
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    assert requests.put(f"{address}/bucket", timeout=60).status_code == 200
    yield address
    running.stop()


@SLOW
def test_sharing_on_s3(members, bucket):
    for line in sections()["On S3"]:
        members.follow(line.replace("https://s3.example.org", bucket))
    members.first.run("git", "commit", "--quiet", "--all", "--message=A remote")
    members.first.run("git", "push", "--quiet", "origin", "main")
    members.teammate.run("git", "pull", "--quiet", "origin", "main")
    for line in sections()["Share data and models"][2:]:
        members.follow(line)
    assert "lesionseg/" in requests.get(f"{bucket}/bucket", timeout=60).text
    assert ran(members.teammate.dvc("repro").stdout) == []


@SLOW
def test_a_sweep_in_one_line(members):
    [line] = re.findall(
        r"^A sweep is one line: `([^`]*)` queues six\.$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert members.follow(line).count("Queued experiment") == 6
    assert len(re.findall("Queued", members.first.dvc("queue", "status").stdout)) == 6


@SLOW
def test_undo_after_a_run_that_failed(members):
    """An invalid value: DVC had cleared the model before the stage could refuse it."""
    model = members.first.root / "models/trained/weights.safetensors"
    refused = members.first.dvc("exp", "run", "-S", "train.epochs=0", check=False)
    assert refused.returncode
    assert "train.epochs: found 0" in refused.stderr
    assert not model.exists()
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [undo] = re.findall(r"^    (git checkout HEAD .*?) +#", readme, re.MULTILINE)
    assert undo in sections()["Experiments and the queue"], "README and page say the same"
    members.follow(undo)
    assert model.is_file()
    assert members.first.dvc("status", "--quiet", check=False).returncode == 0
    assert members.first.run("git", "status", "--porcelain").stdout == ""


@SLOW
def test_experiments_and_the_queue(members):
    share(members)
    queued = False
    for line in sections()["Experiments and the queue"]:
        if line.startswith("dvc queue status"):
            end = time.monotonic() + PATIENCE
            while re.search("Queued|Running", members.follow(line)) and time.monotonic() < end:
                time.sleep(2)
            assert len(re.findall("Success", members.follow(line))) == 2, members.follow(line)
            queued = True
        printed = members.follow(line)
        if line.startswith("dvc exp show"):
            assert len(printed.splitlines()[1].split("Created")[1].split()) < 30, "columns"
        if line.startswith("dvc queue logs"):
            assert ran(printed) == [f"Running stage '{stage}':" for stage in ("train", "evaluate", "visualize")]
        if line.startswith("dvc exp run --queue"):
            assert "Queued experiment" in printed
    assert queued
    assert members.teammate.dvc("exp", "list", "--name-only").stdout.split()
    assert members.first.run("git", "status", "--porcelain").stdout == ""
    assert members.first.dvc("status", "--quiet", check=False).returncode == 0


@SLOW
def test_comparing(members):
    for threshold in (0.4, 0.6):
        members.first.dvc("exp", "run", "-S", f"evaluate.threshold={threshold}")
    diff, *tables = [members.follow(line) for line in sections()["Compare"]]
    assert "val.pooled.dice" in diff
    for table in tables:  # of five images, too few for the words that an interval gives (tests/test_compare.py)
        assert re.search(r"^val +pooled\.dice +0\.\d+ +0\.\d+ +[+-]0\.\d+ .*no interval$", table, re.MULTILINE)
        assert "val: compared on 5 images." in table


@SLOW
def test_what_a_pull_request_says(members):
    repeat(members.first, "topic", "evaluate.threshold=0.6")
    report, gate = [members.follow(line) for line in sections()["Pull requests"]]
    assert "evaluate.threshold" in report
    assert "gate: dvc.lock belongs" in gate


@SLOW
def test_merging_two_runs(members):
    repeat(members.first, "theirs", "evaluate.threshold=0.6")
    repeat(members.first, "ours", "visualize.examples=1")
    assert members.first.run("git", "merge", "theirs", check=False).returncode, "both have a dvc.lock of their own"
    for line in sections()["Merges"]:
        members.follow(line)
    assert ran(members.first.dvc("repro").stdout) == []
    assert members.first.run("git", "status", "--porcelain").stdout == ""


@SLOW
def test_accepting_a_comment(members):
    module = members.first.root / "src/lesionseg/train/loop.py"
    module.write_text(module.read_text(encoding="utf-8") + "\n# A comment.\n", encoding="utf-8")
    [line] = sections()["Changes that cannot alter a result"]
    assert "the same byte for byte" in members.follow(line)
    assert ran(members.first.dvc("repro").stdout) == []


@SLOW
def test_disk(members):
    for line in sections()["Disk"]:
        members.follow(line)
    model = members.first.root / "models/trained/weights.safetensors"
    assert model.stat().st_nlink > 1 or model.is_symlink(), "linked, where the file system has no reflinks"
    assert members.first.dvc("status", "--quiet", check=False).returncode == 0


def test_from_another_repository(members):
    metrics, data, *_ = [members.follow(line) for line in sections()["From another repository"]]
    assert "'dice'" in metrics
    assert data.startswith("id,split")
    downloaded = members.first.root / "downloaded"
    assert sorted(path.name for path in downloaded.iterdir()) == sorted(
        path.name for path in (members.first.root / "models/lesion-segmentation").iterdir()
    )


@SLOW
@pytest.mark.parametrize("autocrlf", ["false", "true"])
def test_the_gate_passes_in_a_clone_without_data(team, tmp_path, autocrlf):
    """Also where git is set to turn line ends, as on Windows: DVC hashes the bytes on disk."""
    team.run("git", "clone", "--quiet", f"--config=core.autocrlf={autocrlf}", ".", str(tmp_path / "bare"))
    clone = Clone(tmp_path / "bare", {})
    assert not (clone.root / "data/mine").exists()
    assert "gate: dvc.lock belongs" in clone.run("python", "tools/gate.py").stdout
    parameters = clone.root / "params.yaml"
    before = parameters.read_text(encoding="utf-8")
    parameters.write_text(before.replace("  batch_size: 4", "  batch_size: 5"), encoding="utf-8")
    assert (
        "gate: dvc.lock is stale: `dvc repro` would run train."
        in clone.run("python", "tools/gate.py", check=False).stdout
    )
    parameters.write_text(before, encoding="utf-8")
    (clone.root / "metrics/evaluation.json").write_text("{}", encoding="utf-8")
    by_hand = clone.run("python", "tools/gate.py", check=False)
    assert by_hand.returncode == 1
    assert by_hand.stdout.startswith("gate: metrics/evaluation.json: changed by hand, it is not what evaluate wrote")


@SLOW
def test_a_teammate_pulls_and_runs_nothing(team, tmp_path):
    clone = clone_of(team, tmp_path / "teammate")
    clone.dvc("pull", "models/trained")
    assert (clone.root / "models/trained/weights.safetensors").is_file()
    clone.dvc("pull", "--run-cache")
    assert ran(clone.dvc("repro").stdout) == []


@SLOW
def test_a_repeated_experiment_runs_nothing(team):
    """Not even where another ran between: the results of all five stages are in the run cache."""
    settings = ["-S", "download.limit=12", "-S", "evaluate.threshold=0.6"]
    first = team.dvc("exp", "run", *settings)
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert ran(first.stdout) == [f"Running stage '{stage}':" for stage in stages]
    between = team.dvc("exp", "run", "-S", "download.limit=null", "-S", "evaluate.threshold=0.5")
    assert ran(between.stdout) == [], "the run that the fixture made"
    again = team.dvc("exp", "run", *settings)
    assert ran(again.stdout) == []
    team.run("git", "checkout", "HEAD", "--", "params.yaml", "dvc.lock", "metrics", "plots")
    team.dvc("checkout", "--force")
    assert ran(team.dvc("repro").stdout) == []


@SLOW
def test_a_change_in_own_data_is_noticed(team):
    path = team.root / "data/mine/p0_mask.png"
    before = path.read_bytes()
    shutil.copyfile(team.root / "data/mine/p1_mask.png", path)
    try:
        assert "data/mine" in team.dvc("status").stdout
    finally:
        path.unlink()
        path.write_bytes(before)


@SLOW
def test_freezing_the_download(team):
    before = (team.root / "dvc.yaml").read_bytes()
    try:
        team.dvc("freeze", "download")
        frozen = team.dvc("repro", "download")
        assert ran(frozen.stdout) == []
        assert "is frozen" in frozen.stdout + frozen.stderr
    finally:
        (team.root / "dvc.yaml").write_bytes(before)


@SLOW
def test_a_folder_that_is_no_dependency_is_refused_by_the_stage(team):
    refused = team.dvc("exp", "run", "--temp", "-S", "download.folder=data/other", check=False)
    assert refused.returncode != 0
    assert "make own FOLDER=data/other" in refused.stdout + refused.stderr


def test_a_split_has_about_a_dozen_metrics():
    """What `dvc metrics diff` prints of it; intervals and statistics are in files that are no metric."""
    evaluation = json.loads((REPOSITORY / "metrics/evaluation.json").read_text(encoding="utf-8"))
    scores = evaluation["val"].values()
    assert sum(len(score) if isinstance(score, dict) else 1 for score in scores) <= 14


def test_links_to_own_data_lead_somewhere():
    for page in ("docs/team.md", "README.md"):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        assert "docs/data-own.md" in text or re.search(r"\(data-own\.md\)", text)
