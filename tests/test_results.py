"""docs/results.md says what the files in docs/results/ say; the ladder that makes such files."""

import importlib.util
import json
import subprocess
import sys

import lesion_picture
import numpy as np
import pytest
import results
import yaml
from PIL import Image

from conftest import REPOSITORY
from lesionseg.download.layout import find_layout
from lesionseg.formats import metadata
from lesionseg.scoring import scores
from lesionseg.scoring.bootstrap import mean_intervals

RUNS = results.recorded_runs()
PAGE = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("run", RUNS)
def test_every_row_of_a_run_stands_on_the_page(run):
    rows = [*results.run_table(results.RUNS / run), *results.ladder([results.RUNS / run])]
    missing = [row for row in rows if row not in PAGE.splitlines()]
    assert not missing, f"python tools/results.py table {run}"


def test_every_row_of_the_exploration_stands_on_the_page():
    assert set(results.exploration()) <= set(PAGE.splitlines()), "python tools/results.py table"


def test_every_row_of_the_breakdown_stands_on_the_page():
    missing = [row for row in results.breakdown_table(results.RUNS / "quick-3") if row not in PAGE.splitlines()]
    assert not missing, "python tools/results.py table quick-3"


@pytest.mark.parametrize("run", RUNS)
def test_the_scores_computed_from_the_images_are_those_of_the_evaluation(run):
    folder = results.RUNS / run
    images = results.read(folder / "per_image.csv")
    evaluation = json.loads((folder / "evaluation.json").read_text("utf-8"))
    for split in images.splits():
        found, said = results.split_scores(images, split), evaluation[split]
        for name in ("dice", "iou", "precision", "recall"):
            assert found[f"pooled {name}"].value == pytest.approx(said["pooled"][name], abs=1e-6)
        assert found["per image iou"].value == pytest.approx(said["per_image"]["iou"], abs=1e-6)
        assert found["threshold_jaccard"].value == pytest.approx(said["official"]["threshold_jaccard"], abs=1e-4)
        assert found["failures"].value == pytest.approx(said["official"]["failure_rate"], abs=1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_was_evaluated_on_none_of_the_images_it_was_trained_on(run):
    lines = (results.RUNS / run / "splits.csv").read_text("utf-8").splitlines()[1:]
    split_of = dict(line.split(",") for line in lines)
    evaluated = results.read(results.RUNS / run / "per_image.csv").rows
    assert {name: split for split, name in evaluated} == {
        name: split for name, split in split_of.items() if split != "train"
    }


@pytest.mark.parametrize(
    ("run", "diagnosis"),
    [("quick-without-melanoma", "melanoma"), ("quick-without-keratosis", "seborrheic_keratosis")],
)
def test_what_leaving_out_a_diagnosis_changes_stands_on_the_page(run, diagnosis):
    folders = results.RUNS / "quick-3", results.RUNS / run
    before = results.read(folders[0] / results.MEMBER.format(1))
    after = results.read(folders[1] / "per_image.csv")
    known = metadata.read(folders[0]).rows
    of_it = [key for key in sorted(before.rows) if known[key[1]]["diagnosis"] == diagnosis]
    others = sorted(before.rows.keys() - set(of_it))

    def both(column, keys):
        return tuple(table.values(column, keys) for table in (before, after))

    iou, iou_of_others, jaccard = both("iou", of_it), both("iou", others), both("jaccard_native", of_it)
    failed = [np.mean(one < scores.FAILURE) for one in jaccard]
    change = iou[1] - iou[0]
    low, high = mean_intervals({"change": change}, before.groups(of_it), results.RESAMPLING)["change"]
    cells = (
        f"{len(of_it)} images: {iou[0].mean():.3f} → {iou[1].mean():.3f}",
        f"{change.mean():.3f} ({low:.3f} to {high:.3f})",
        f"{failed[0]:.3f} → {failed[1]:.3f}",
        f"{iou_of_others[0].mean():.3f} → {iou_of_others[1].mean():.3f}",
    )
    assert f"| {' | '.join(cells)} |" in PAGE, cells


@pytest.fixture(scope="module")
def ladder():
    spec = importlib.util.spec_from_file_location("ladder", REPOSITORY / "benchmarks/ladder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_rung_is_its_profile_and_then_its_own_settings(ladder):
    rungs = yaml.safe_load((REPOSITORY / "benchmarks/ladder.yaml").read_text("utf-8"))
    parameters = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))
    for name, rung in rungs.items():
        assert set(rung) <= {"change", "profile", "settings", "without", "test_of"}, name
        for setting in ladder.settings(rung):
            group, key = setting.partition("=")[0].split(".")
            assert key in parameters[group], f"{name}: {setting}"
    chosen = ladder.settings({"profile": "quick", "settings": {"train.epochs": 26}})
    assert [setting for setting in chosen if "epochs=" in setting][-1] == "train.epochs=26"
    assert "train.network=quarter_unet" in chosen


def test_a_rung_that_is_recorded_is_not_run_again(ladder, tmp_path, monkeypatch, capsys):
    (tmp_path / "ladder.yaml").write_text("a: {change: one}\nb: {change: two}\n", encoding="utf-8")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.yaml").write_text("change: one\n", encoding="utf-8")
    climbed = []
    monkeypatch.setattr(ladder.results, "RUNS", tmp_path)
    monkeypatch.setattr(ladder.results, "ladder", lambda folders: [folder.name for folder in folders])
    monkeypatch.setattr(ladder, "cloned", lambda work: work)
    monkeypatch.setattr(ladder, "climb", lambda name, *rest: climbed.append(name))
    assert ladder.main([str(tmp_path), "--rungs", str(tmp_path / "ladder.yaml")]) == 0
    assert climbed == ["b"]
    assert capsys.readouterr().out.splitlines()[-2:] == ["a", "b"]
    assert ladder.main(["isic2018", "a", "--rungs", str(tmp_path / "ladder.yaml")]) == 0
    assert climbed[1:] == ["a-isic2018"], "a run on other photographs is another run"
    with pytest.raises(SystemExit):
        ladder.main([str(tmp_path), "c", "--rungs", str(tmp_path / "ladder.yaml")])
    assert "c: not in" in capsys.readouterr().err


@pytest.fixture
def photographs(ladder, tmp_path, monkeypatch):
    """Five pairs, four of which a run `before` split."""
    monkeypatch.setattr(ladder.results, "RUNS", tmp_path)
    (tmp_path / "before").mkdir()
    (tmp_path / "before/splits.csv").write_text("id,split\na,train\nb,train\nc,val\nd,test\n", encoding="utf-8")
    photographs = tmp_path / "photographs"
    for name in (f"{one}{end}" for one in ("a", "b", "c", "d", "unknown") for end in (".jpg", "_segmentation.png")):
        (photographs / name[-3:]).mkdir(parents=True, exist_ok=True)
        (photographs / name[-3:] / name).touch()
    (photographs / "LICENSE.txt").touch()
    return photographs


def test_the_test_images_of_a_run_are_kept_and_the_others_divided_anew(ladder, photographs, tmp_path):
    pairs = find_layout(ladder.with_test_of("before", photographs, tmp_path / "copy")).pairs
    assert {name: pair.split for name, pair in pairs.items()} == {"a": None, "b": None, "c": None, "d": "test"}


def test_a_group_is_left_out_of_the_training_images_alone(ladder, photographs, tmp_path, capsys):
    table = "id,diagnosis\na,naevus\nb,melanoma\nc,melanoma\nd,melanoma\n"
    (photographs / "metadata.csv").write_text(table, encoding="utf-8")
    group = {"column": "diagnosis", "value": "melanoma", "splits_of": "before"}
    for _ in range(2):  # again: the copy of the first time is replaced
        copy = ladder.without(group, photographs, tmp_path / "copy")
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == {
        "LICENSE.txt",
        "metadata.csv",
        "train/jpg/a.jpg",
        "train/png/a_segmentation.png",
        "val/jpg/c.jpg",
        "val/png/c_segmentation.png",
        "test/jpg/d.jpg",
        "test/png/d_segmentation.png",
    }
    (tmp_path / "ladder.yaml").write_text("a: {change: one, without: {}}\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        ladder.main(["isic2018", "a", "--rungs", str(tmp_path / "ladder.yaml")])
    assert "a: needs a FOLDER with metadata.csv" in capsys.readouterr().err


def test_what_is_recorded_of_a_run_names_no_place_on_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RUNS", tmp_path / "recorded")
    for name in (*results.FILES, *results.SPLIT_TABLES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(
            "download: {folder: /home/me/photographs, external: /home/me/others}\n", encoding="utf-8"
        )
    for name, split in zip(results.SPLIT_TABLES, ("train", "test"), strict=True):
        (tmp_path / name).write_text(f"id,split,width\n{split}_1,{split},256\n", encoding="utf-8")
    folder = results.record(tmp_path, "run", change="a trial", commit="abc", core_minutes=1.0)
    assert (folder / "splits.csv").read_text("utf-8").splitlines() == ["id,split", "test_1,test", "train_1,train"]
    assert "/home/me" not in "".join(path.read_text("utf-8") for path in folder.iterdir())
    assert "photographs" in (folder / "dvc.lock").read_text("utf-8")


def test_the_picture_shows_images_drawn_from_the_split_and_names_them(tmp_path, monkeypatch):
    for folder in ("data/raw", "data/evaluation", "plots"):
        (tmp_path / folder).mkdir(parents=True)
    manifest, samples, table = ["id,image,mask"], ["id,split,index"], ["id,split,dice,iou"]
    for number in range(4):
        Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / f"data/raw/{number}.png")
        mask = np.zeros((20, 30), np.uint8)
        mask[5:15, 5:20] = 255
        Image.fromarray(mask).save(tmp_path / f"data/raw/{number}_segmentation.png")
        split = "val" if number == 0 else "test"
        manifest.append(f"I{number},{number}.png,{number}_segmentation.png")
        samples.append(f"I{number},{split},{number}")
        table.append(f"I{number},{split},0.9{number},0.8{number}")
    for name, lines in (
        ("data/raw/manifest.csv", manifest),
        ("data/evaluation/samples.csv", samples),
        ("plots/per_image.csv", table),
    ):
        (tmp_path / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    np.save(tmp_path / "data/evaluation/predicted.npy", np.ones((4, 16, 16), np.uint8))
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(lesion_picture, "FOLDER", tmp_path / "pictures")
    monkeypatch.setattr(sys, "argv", ["lesion_picture", str(tmp_path), "--count", "3"])
    assert lesion_picture.main() == 0
    text = (tmp_path / "pictures/predictions.md").read_text("utf-8")
    assert "3 of the 3 photographs of the test split" in text
    assert {f"I{number}: Dice 0.9{number}0" for number in (1, 2, 3)} <= {line[2:16] for line in text.splitlines()}
    with Image.open(tmp_path / "pictures/predictions.jpg") as picture:
        assert picture.size == (3 * 256 + 2 * 6, 256)
