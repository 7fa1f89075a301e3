"""The tiny pipeline through DVC: what it writes, that it repeats byte for byte, and what each change re-runs."""

import json
import re
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from PIL import Image

from conftest import REPOSITORY, Clone, clone_repository, overlay, pipeline_files
from lesionseg.common.files import read_csv

STAGES = tuple(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


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


def test_the_metrics_are_whole_and_agree_with_each_other(tiny_run, evaluation, capsys):
    val = evaluation["val"]
    rows = read_csv(tiny_run.root / "plots/confusion.csv")
    cells = {(row["actual"], row["predicted"]): int(row["count"]) for row in rows}
    counts = {
        "tp": cells["lesion", "lesion"],
        "fp": cells["background", "lesion"],
        "fn": cells["lesion", "background"],
        "tn": cells["background", "background"],
    }
    assert val["images"] == 5, "24 images, a fifth of them for validation"
    assert sum(counts.values()) == 5 * 64 * 64, "every validation pixel is counted once"
    dice = 2 * counts["tp"] / (2 * counts["tp"] + counts["fp"] + counts["fn"])
    assert val["pooled"]["dice"] == pytest.approx(dice, abs=1e-6)
    recall = counts["tp"] / (counts["tp"] + counts["fn"])
    assert val["pooled"]["recall"] == pytest.approx(recall, abs=1e-6)
    for averaging, names in {"pooled": ("dice", "iou", "precision", "recall"), "per_image": ("dice", "iou")}.items():
        for name in names:
            assert 0 <= val[averaging][name] <= 1
    assert counts["tp"] > 0, "a network that finds nothing would hide every fault of what follows"
    with capsys.disabled():
        print(f"\ntiny pipeline: pooled Dice {val['pooled']['dice']:.3f}, IoU {val['pooled']['iou']:.3f}")


def test_every_declared_output_is_there(tiny_run):
    written = hashes(tiny_run)
    assert written
    for path in written:
        assert (tiny_run.root / path).exists(), path
    for path in (tiny_run.root / "plots").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_git_holds_small_results_and_no_data(tiny_run):
    tracked = tiny_run.run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    assert not [path for path in tracked if path.startswith(("data/raw", "data/processed", "models/trained"))]
    assert "metrics/evaluation.json" in tracked


def test_a_repeated_run_does_nothing(tiny_run):
    assert stages_run(tiny_run.dvc("repro").stdout) == []


def test_a_second_clone_writes_the_same_bytes(tiny_run, tmp_path):
    second = clone_repository(tmp_path / "clone")
    second.dvc("exp", "run", "--force", *overlay("tiny.txt"))
    assert hashes(second) == hashes(tiny_run)


def test_the_working_copy_is_left_as_it_was(tiny_run):
    assert tiny_run.repository_before == pipeline_files(REPOSITORY)


def test_the_readme_says_what_each_parameter_re_runs(tiny_run):
    """DVC is asked for every key in params.yaml: which stages a changed value makes stale."""
    path = tiny_run.root / "params.yaml"
    original = path.read_text(encoding="utf-8")
    parameters = yaml.safe_load(original)
    actual = {}
    try:
        for group, entries in parameters.items():
            for key, value in entries.items():
                changed = parameters | {group: entries | {key: another(value)}}
                path.write_text(yaml.safe_dump(changed), encoding="utf-8")
                actual[f"{group}.{key}"] = stale_stages(tiny_run.root)
    finally:
        path.write_text(original, encoding="utf-8")
    assert documented_stages() == of_groups(actual), f"what DVC says: {of_groups(actual)}"


def of_groups(stages_of_key: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Group -> stages; a group whose keys differ in what they re-run fails."""
    groups: dict[str, set[tuple[str, ...]]] = {}
    for key, stages in stages_of_key.items():
        groups.setdefault(key.partition(".")[0], set()).add(stages)
    assert all(len(stages) == 1 for stages in groups.values()), f"keys of one group differ: {stages_of_key}"
    return {group: stages.pop() for group, stages in groups.items()}


def another(value):
    """A value of the same type, other than the given one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return 1 if value is None else f"{value}-changed"


def stale_stages(root: Path) -> tuple[str, ...]:
    """What `dvc status` names as changed, and every stage that depends on it, in the order of the pipeline."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph  # an edge points from a stage to one it depends on
        changed = repo.status()
        stale = {
            dependent.name
            for stage in graph
            if stage.addressing in changed
            for dependent in nx.ancestors(graph, stage) | {stage}
        }
    return tuple(stage for stage in STAGES if stage in stale)


def documented_stages() -> dict[str, tuple[str, ...]]:
    """The re-run table of the README: rows of `group` | stages."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)\.\*` \| (.*) \|$", readme, re.MULTILINE)
    return {group: tuple(stage for stage in STAGES if f"`{stage}`" in cell) for group, cell in rows}


@pytest.mark.slow
def test_a_set_to_evaluate_on_never_trains_again(tiny_run, tmp_path):
    """Added or changed, it re-runs every stage but train; taken away, no more than the copy of the data."""
    second = clone_repository(tmp_path / "clone")
    second.dvc("exp", "run", *overlay("tiny.txt"))
    raw = second.root / "data/raw"
    pairs = sorted((raw / "masks").iterdir())[:4]
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for mask in pairs:
        name = mask.stem.removesuffix("_segmentation")
        with Image.open(raw / "images" / f"{name}.jpg") as image:
            noise = random.integers(0, 256, (image.height, image.width, 3), np.uint8)  # another picture
        Image.fromarray(noise).save(tmp_path / "own/images" / f"{name}.png")
        (tmp_path / "own/masks" / mask.name).write_bytes(mask.read_bytes())
    model = (second.root / "models/trained/weights.safetensors").read_bytes()
    but_train = [stage for stage in STAGES if stage != "train"]
    second.run("python", "tools/own.py", str(tmp_path / "own"))

    added = second.dvc("exp", "run", "-S", f"download.external={tmp_path / 'own'}").stdout
    assert stages_run(added) == but_train
    evaluation = json.loads((second.root / "metrics/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["external"]["images"] == 4
    assert (second.root / "models/trained/weights.safetensors").read_bytes() == model
    (tmp_path / "own/masks" / pairs[0].name).write_bytes(pairs[1].read_bytes())
    (tmp_path / "own/images" / f"{pairs[0].stem.removesuffix('_segmentation')}.png").write_bytes(
        (tmp_path / "own/images" / f"{pairs[1].stem.removesuffix('_segmentation')}.png").read_bytes()
    )
    assert stages_run(second.dvc("exp", "run").stdout) == but_train
    assert (second.root / "models/trained/weights.safetensors").read_bytes() == model
    removed = second.dvc("exp", "run", "-S", "download.external=null").stdout
    assert stages_run(removed) == ["download"], "what follows is in the run cache"


@pytest.mark.slow
def test_a_temporary_copy_runs_its_own_code(tiny_run):
    """`dvc exp run --temp` runs the code of its copy, not that of the installed checkout."""
    source = tiny_run.root / "src/lesionseg/scoring/scores.py"
    original = source.read_text(encoding="utf-8")
    try:
        source.write_text(original + '\nraise RuntimeError("the code of the copy ran")\n', encoding="utf-8")
        result = tiny_run.dvc("exp", "run", "--temp", check=False)
    finally:
        source.write_text(original, encoding="utf-8")
    assert result.returncode != 0
    assert "the code of the copy ran" in result.stdout + result.stderr
