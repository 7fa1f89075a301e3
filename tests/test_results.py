"""docs/results.md says what the files in docs/results/ say; the ladder that makes such files."""

import json

import pytest
import results
import yaml

from conftest import REPOSITORY, overlay

RUNS = results.kept_runs()
PAGE = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("run", RUNS)
def test_every_row_of_a_run_stands_on_the_page(run):
    rows = [*results.run_table(results.RUNS / run), *results.ladder([results.RUNS / run])]
    missing = [row for row in rows if row not in PAGE.splitlines()]
    assert not missing, f"python tools/results.py table {run}"


def test_every_row_of_the_exploration_stands_on_the_page():
    assert set(results.exploration()) <= set(PAGE.splitlines()), "python tools/results.py table"


@pytest.mark.parametrize("run", RUNS)
def test_the_figures_computed_from_the_images_are_those_of_the_evaluation(run):
    folder = results.RUNS / run
    images = results.read(folder / "per_image.csv")
    evaluation = json.loads((folder / "evaluation.json").read_text("utf-8"))
    for split in images.splits():
        found, said = results.figures(images, split), evaluation[split]
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


def test_a_rung_is_its_profile_and_then_its_own_settings():
    rungs = yaml.safe_load((REPOSITORY / "benchmarks/ladder.yaml").read_text("utf-8"))
    for name, rung in rungs.items():
        assert set(rung) <= {"change", "profile", "settings"}, name
        parameters = yaml.safe_load((REPOSITORY / "params.yaml").read_text("utf-8"))
        for setting in rung.get("settings", {}):
            group, key = setting.split(".")
            assert key in parameters[group], f"{name}: {setting}"
        if rung.get("profile"):
            assert overlay(f"{rung['profile']}.txt")


def test_what_is_kept_of_a_run_names_no_place_on_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RUNS", tmp_path / "kept")
    for name in (*results.KEPT, *results.SPLIT_TABLES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("download: {folder: /home/me/photographs}\n", encoding="utf-8")
    for name, split in zip(results.SPLIT_TABLES, ("train", "test"), strict=True):
        (tmp_path / name).write_text(f"id,split,width\n{split}_1,{split},256\n", encoding="utf-8")
    folder = results.keep(tmp_path, "run", change="a trial", commit="abc", core_minutes=1.0)
    assert (folder / "splits.csv").read_text("utf-8").splitlines() == ["id,split", "test_1,test", "train_1,train"]
    assert "/home/me" not in "".join(path.read_text("utf-8") for path in folder.iterdir())
    assert "photographs" in (folder / "dvc.lock").read_text("utf-8")
