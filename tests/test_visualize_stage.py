"""The visualize stage, run as DVC runs it: a script in a directory with the outputs of the stages before it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from evaluated import disc, write_evaluation
from lesionseg.visualize.charts import charts
from lesionseg.visualize.results import read_results

REPOSITORY = Path(__file__).parents[1]
KINDS = ("best", "median", "worst", "random")
GALLERIES = {f"galleries/{split}_{kind}.png" for split in ("val", "official_test") for kind in KINDS}


def run(folder: Path, **parameters) -> subprocess.CompletedProcess:
    """Run the stage in `folder` with these values of its parameters."""
    usual = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["visualize"]
    settings = {name: json.dumps(value) for name, value in usual.items()}
    settings |= {"examples": 3, "seed": 0, "ids": "null", "format": "png", "pictures_in_git": "true"} | parameters
    lines = "".join(f"  {name}: {value}\n" for name, value in settings.items())
    (folder / "params.yaml").write_text(f"visualize:\n{lines}", encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "stages/visualize.py")],
        cwd=folder,
        env=os.environ | {"PYTHONWARNINGS": "error::UserWarning,error::RuntimeWarning"},
        capture_output=True,
        text=True,
        check=False,
    )


def drawn(folder: Path) -> dict[str, bytes]:
    """What the stage wrote, by its path under plots/."""
    plots = folder / "plots"
    files = [path for path in plots.rglob("*") if path.is_file() and path.suffix != ".csv"]
    return {path.relative_to(plots).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the stage ran."""
    folder = tmp_path_factory.mktemp("finished")
    write_evaluation(folder, {"train": 3, "val": 12, "official_test": 4})
    result = run(folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def pictures(finished):
    """The galleries and the charts of such a folder, by their path under plots/."""
    results = read_results(*(finished / folder for folder in ("data/evaluation", "plots", "models/trained")))
    return GALLERIES | {f"charts/{chart.name}.png" for chart in charts(results)}


@pytest.fixture
def written(pictures):
    """All that the stage writes."""
    return pictures | {"gallery.png", "report.html"}


@pytest.fixture
def copy(finished, tmp_path):
    """A folder of the test's own, in which the stage ran."""
    return shutil.copytree(finished, tmp_path / "copy")


def test_it_writes_every_picture_and_leaves_nothing_else(finished, written):
    assert set(drawn(finished)) == written
    for name in written - {"report.html"}:
        with Image.open(finished / "plots" / name) as picture:
            picture.verify()
            assert not picture.info.keys() & {"Software", "Creation Time", "tIME"}
    assert len(drawn(finished)["gallery.png"]) < 400_000, "the one picture of this stage in git"


def test_pictures_in_git_may_be_a_notice(copy):
    before = drawn(copy)
    assert run(copy, pictures_in_git="false").returncode == 0
    after = drawn(copy)
    assert {name for name in before if before[name] != after[name]} == {"gallery.png"}
    with Image.open(copy / "plots/gallery.png") as picture:
        assert picture.mode == "L"
    assert len(after["gallery.png"]) < 10_000


def test_the_page_holds_the_galleries_of_every_split(finished):
    page = drawn(finished)["report.html"].decode()
    for kind in ("Best", "Median", "Worst", "Random"):
        for split in ("validation split, 12 images", "official test, 4 images"):
            ranked = "" if kind == "Random" else " by Dice"
            assert f"{kind} predictions{ranked} · {split}" in page
    assert page.count("<figcaption><b>ISIC_") == 2 * 4 * 3


def test_seed_changes_the_random_gallery_the_overview_and_the_page_alone(copy, written):
    """Which also shows that a second run writes the same bytes."""
    before = drawn(copy)
    assert run(copy, seed=1).returncode == 0
    after = drawn(copy)
    changed = {name for name in written if before[name] != after[name]}
    assert changed <= {"galleries/val_random.png", "galleries/official_test_random.png", "gallery.png", "report.html"}
    assert {"galleries/val_random.png", "report.html"} <= changed


def test_ids_and_format_and_examples_change_what_they_say(copy, pictures):
    first = (copy / "plots/per_image.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[0]
    before = drawn(copy)
    assert run(copy, ids=f"'{first} {first}'", format="svg", examples=1).returncode == 0
    after = drawn(copy)
    vector = {name.replace(".png", ".svg") for name in pictures}
    assert set(after) == vector | {"galleries/val_chosen.svg", "gallery.png", "report.html"}
    assert all(after[name].startswith(b"<?xml") for name in vector)
    page = after["report.html"].decode()
    assert "Chosen predictions · validation split, 12 images" in page
    assert page.count("<figcaption><b>ISIC_") == 1 + 2 * 4
    assert before["report.html"] != after["report.html"]


def test_an_id_that_was_not_evaluated_is_named(copy):
    result = run(copy, ids="NO_SUCH")
    assert result.returncode == 1
    assert "params.yaml: visualize.ids: found NO_SUCH; expected ids of evaluated images" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("examples", "0", "greater than or equal to 1"),
        ("examples", "17", "less than or equal to 16"),
        ("examples", "four", "a valid integer"),
        ("seed", "-1", "greater than or equal to 0"),
        ("dpi", "100", "unknown parameter"),
        ("format", "tiff", "'png', 'svg' or 'pdf'"),
    ],
)
def test_a_bad_parameter_is_one_line_and_nothing_is_written(tmp_path, name, value, expected):
    result = run(tmp_path, **{name: value})
    assert result.returncode == 1
    assert f"params.yaml: visualize.{name}: " in result.stderr
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "plots").exists()


def test_all_that_is_missing_or_damaged_is_named_before_anything_is_written(copy):
    for name in drawn(copy):
        (copy / "plots" / name).unlink()
    (copy / "plots/roc.csv").unlink()
    (copy / "data/evaluation/detail.json").write_text("{", encoding="utf-8")
    (copy / "plots/history.csv").write_text("epoch,train_loss\n1,0.5\n", encoding="utf-8")
    (copy / "models/trained/weights.safetensors").write_bytes(b"no weights")
    result = run(copy)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for problem in (
        "plots/roc.csv: not found",
        "data/evaluation/detail.json: not JSON",
        "plots/history.csv: no column train_dice, train_iou, val_loss, val_dice, val_iou",
        "models/trained/weights.safetensors: not a readable safetensors file",
    ):
        assert problem in result.stderr
    assert drawn(copy) == {}


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("predicted", np.zeros((3, 64, 64), np.uint8), "expected uint8 (16, 64, 64)"),
        ("probabilities", np.zeros((16, 64, 64), np.float32), "float32 (16, 64, 64), expected uint8"),
    ],
)
def test_predictions_of_another_data_set_are_named(copy, name, array, expected):
    np.save(copy / f"data/evaluation/{name}.npy", array)
    result = run(copy)
    assert result.returncode == 1
    assert f"data/evaluation/{name}.npy" in result.stderr
    assert expected in result.stderr


def test_a_prediction_of_an_image_that_is_not_there_is_named(copy):
    path = copy / "data/evaluation/samples.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0] + ",99"]) + "\n", encoding="utf-8")
    result = run(copy)
    assert result.returncode == 1
    assert "index 99 is outside the 19 processed images" in result.stderr


def test_one_image_one_epoch_and_more_examples_than_images(tmp_path, written):
    write_evaluation(tmp_path, {"train": 1, "val": 1}, epochs=1)
    result = run(tmp_path, examples=16)
    assert result.returncode == 0, result.stderr
    assert set(drawn(tmp_path)) == {name for name in written if "official" not in name}
    assert drawn(tmp_path)["report.html"].decode().count("<figcaption><b>ISIC_") == 4


@pytest.mark.parametrize("value", [0, 1], ids=["no lesion at all", "nothing but lesion"])
def test_undefined_curves_are_notes_not_failures(tmp_path, value, written):
    """One class alone: ROC, and without lesion precision-recall, are null in the metrics and empty in the tables."""
    write_evaluation(tmp_path, {"train": 1, "val": 2}, masks=np.full((3, 64, 64), value, np.uint8))
    areas = json.loads((tmp_path / "data/evaluation/detail.json").read_text(encoding="utf-8"))["splits"]["val"]["areas"]
    assert areas["roc_auc"] is None
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(drawn(tmp_path)) == {name for name in written if "official" not in name}


def test_the_official_test_set_alone_with_an_empty_and_a_full_mask(tmp_path, written):
    masks = [disc(64, 30, 30, 12), np.zeros((64, 64), np.uint8), np.ones((64, 64), np.uint8), disc(64, 0, 0, 9)]
    write_evaluation(tmp_path, {"train": 1, "official_test": 3}, masks=np.stack(masks))
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(drawn(tmp_path)) == {name for name in written if "val_" not in name}
