"""The tiny pipeline through DVC: what it writes, that it repeats byte for byte, and what each change re-runs."""

import json
import subprocess

import pytest
import yaml
from conftest import REPOSITORY, Clone, clone_repository, overlay

STAGES = ("download", "preprocess", "train", "evaluate", "visualize")


def stages_run(output: str) -> list[str]:
    """The stages that DVC says it ran or would run."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def hashes(clone: Clone) -> dict[str, str]:
    """Every output's path and md5 in dvc.lock."""
    lock = yaml.safe_load((clone.root / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


@pytest.fixture(scope="module")
def evaluation(tiny_run) -> dict:
    return json.loads((tiny_run.root / "metrics/evaluation.json").read_text(encoding="utf-8"))


def test_the_metrics_are_whole_and_agree_with_each_other(evaluation, capsys):
    val = evaluation["val"]
    counts = {key: int(val["confusion"][key]) for key in ("tp", "fp", "fn", "tn")}
    assert val["images"] == 4, "20 images, a fifth of them for validation"
    assert sum(counts.values()) == 4 * 64 * 64, "every validation pixel is counted once"
    dice = 2 * counts["tp"] / (2 * counts["tp"] + counts["fp"] + counts["fn"])
    assert val["pooled"]["dice"] == pytest.approx(dice, abs=1e-6)
    for averaging in ("pooled", "per_image"):
        for name in ("dice", "iou", "precision", "recall", "specificity", "accuracy"):
            assert 0 <= val[averaging][name] <= 1
    with capsys.disabled():
        print(f"\ntiny pipeline: pooled Dice {val['pooled']['dice']:.3f}, IoU {val['pooled']['iou']:.3f}")


def test_every_declared_output_is_there(tiny_run):
    stages = yaml.safe_load((tiny_run.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert tuple(stages) == STAGES
    for path in hashes(tiny_run):
        assert (tiny_run.root / path).exists(), path
    for path in (tiny_run.root / "plots").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_git_holds_small_results_and_no_data(tiny_run):
    tracked = tiny_run.run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    assert not [path for path in tracked if path.startswith(("data/raw", "data/processed", "models/unet"))]
    assert "metrics/evaluation.json" in tracked


def test_a_repeated_run_does_nothing(tiny_run):
    assert stages_run(tiny_run.dvc("repro").stdout) == []


def test_a_second_clone_writes_the_same_bytes(tiny_run, tmp_path):
    second = clone_repository(tmp_path / "clone")
    second.dvc("exp", "run", "--force", *overlay("tiny.txt"))
    assert hashes(second) == hashes(tiny_run)


def test_the_working_copy_is_left_as_it_was(tiny_run):
    """The clone's run wrote into the clone alone: the parameters here are still those of the repository."""
    status = subprocess.run(
        ["git", "status", "--porcelain", "--", "params.yaml", "dvc.lock", "dvc.yaml"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    tiny = yaml.safe_load((tiny_run.root / "params.yaml").read_text(encoding="utf-8"))
    here = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    assert tiny["train"]["epochs"] != here["train"]["epochs"], status


@pytest.mark.slow
def test_a_temporary_copy_runs_its_own_code(tiny_run):
    """`dvc exp run --temp` runs the code of its copy, not that of the installed checkout."""
    source = tiny_run.root / "src/lesionseg/scores.py"
    original = source.read_text(encoding="utf-8")
    try:
        source.write_text(original + '\nraise RuntimeError("the code of the copy ran")\n', encoding="utf-8")
        result = tiny_run.dvc("exp", "run", "--temp", check=False)
    finally:
        source.write_text(original, encoding="utf-8")
    assert result.returncode != 0
    assert "the code of the copy ran" in result.stdout + result.stderr
