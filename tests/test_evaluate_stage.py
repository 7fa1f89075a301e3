"""The evaluate stage on a small data set of many sizes: scores against the official scorer, options, edge cases."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image

from lesionseg.common.errors import InputError
from lesionseg.evaluate.image_metrics import METRICS
from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts, count
from tiny_data import REPOSITORY, SIZE, Network, constant_network, run_stage, write_data, write_model


@dataclass
class World:
    """A directory with everything the stage reads."""

    root: Path
    truth: dict[str, np.ndarray]  # native masks by id

    def run(self, workers: int = 2, **changes) -> dict:
        """Run the stage in this process with changed parameters; returns the splits of detail.json."""
        run_stage(self.root, "evaluate", {"workers": workers}, **{"bootstrap_samples": 100} | changes)
        return self.json("data/evaluation/detail.json")["splits"]

    def json(self, name: str) -> dict:
        return json.loads((self.root / name).read_text(encoding="utf-8"), parse_constant=no_nan)

    def table(self, name: str) -> list[dict[str, str]]:
        with open(self.root / f"plots/{name}.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def array(self, name: str) -> np.ndarray:
        return np.load(self.root / f"data/evaluation/{name}.npy")

    def outputs(self) -> dict[str, bytes]:
        """Every file the stage writes."""
        folders = ("metrics", "plots", "data/evaluation", "data/submission", "models/lesion-segmentation")
        files = (path for folder in folders for path in (self.root / folder).rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


def no_nan(text: str):
    raise AssertionError(f"{text} is not JSON")


def make(root: Path, network: Network, splits: list[str], masks: list[np.ndarray] | None = None) -> World:
    write_model(root, network)
    return World(root, write_data(root, splits, masks))


@pytest.fixture
def world(tmp_path, network) -> World:
    """Four training images, twelve of val, four of the official test set, their splits mixed."""
    return make(tmp_path, network, ["val", "train", "val", "official_test", "val"] * 4)


def official(world: World, split: str, names: list[str]):
    """The official scorer on the masks that the stage wrote."""
    truth = world.root / f"truth_{split}"
    truth.mkdir()
    for name in names:
        shutil.copy(world.root / f"data/raw/masks/{name}_segmentation.png", truth)
    return SegmentationScore.from_dir(truth, world.root / f"data/submission/{split}").macro_average


def test_the_official_scorer_gives_the_same_scores_on_the_submission(world):
    evaluation = world.run(submission=True, keep_largest=True)
    for split, images in (("val", 12), ("official_test", 4)):
        names = [row["id"] for row in world.table("per_image") if row["split"] == split]
        assert len(names) == evaluation[split]["images"] == images
        found, expected = evaluation[split]["official"], official(world, split, names)
        assert found["threshold_jaccard"] == pytest.approx(expected.threshold_jaccard, abs=1e-6)
        assert found["jaccard_native"] == pytest.approx(expected.jaccard, abs=1e-6)
        assert found["dice_native"] == pytest.approx(expected.dice, abs=1e-6)
        if split == "val":
            assert 0 < found["failure_rate"] < 1, "both sides of 0.65 occur"
            assert found["threshold_jaccard"] < found["jaccard_native"]
        for row in world.table("per_image"):
            mask = np.asarray(Image.open(world.root / f"data/submission/{row['split']}/{row['id']}_segmentation.png"))
            assert set(np.unique(mask)) <= {0, 255}
            jaccard = scores.iou(count(mask, world.truth[row["id"]]))
            assert float(row["jaccard_native"]) == pytest.approx(jaccard, abs=6e-5)


def test_the_scores_follow_from_the_stored_predictions(world):
    evaluation = world.run()["val"]
    with open(world.root / "data/evaluation/samples.csv", newline="", encoding="utf-8") as file:
        kept = list(csv.DictReader(file))
    masks = np.concatenate([np.load(world.root / f"data/{folder}/masks.npy") for folder in ("processed", "held_out")])
    probabilities, predicted = world.array("probabilities"), world.array("predicted")
    assert probabilities.shape == predicted.shape == (16, SIZE, SIZE)
    np.testing.assert_array_equal(predicted, probabilities >= 127.5)
    assert [row["split"] for row in kept] == ["val"] * 12 + ["official_test"] * 4
    truth = masks[[int(row["index"]) for row in kept]]
    each = [count(*pair) for pair in zip(predicted[:12], truth[:12], strict=True)]
    pooled = count(predicted[:12], truth[:12])
    assert evaluation["confusion"] == pooled._asdict()
    for name, score in scores.OVERLAP.items():
        assert evaluation["pooled"][name] == pytest.approx(score(pooled), abs=1e-6)
        assert evaluation["per_image"][name] == pytest.approx(np.mean([score(one) for one in each]), abs=1e-6)
    rows = {(row["actual"], row["predicted"]): int(row["count"]) for row in world.table("confusion")[:4]}
    assert rows == {
        ("lesion", "lesion"): pooled.tp,
        ("lesion", "background"): pooled.fn,
        ("background", "lesion"): pooled.fp,
        ("background", "background"): pooled.tn,
    }


def test_headline_scores_lie_within_their_intervals(world):
    evaluation = world.run()["val"]
    for part, names in (
        ("pooled", ("dice", "iou")),
        ("per_image", ("dice", "iou")),
        ("official", ("threshold_jaccard", "jaccard_native")),
        ("boundary", ("hd95", "normalised_surface_distance", "boundary_iou")),
    ):
        for name in names:
            found = evaluation[part]
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_breakdowns_add_up_to_all_images(world):
    evaluation = world.run()
    for split, images in (("val", 12), ("official_test", 4)):
        rows = [row for row in world.table("per_image") if row["split"] == split]
        for groups in ("by_size", "by_border"):
            parts = evaluation[split][groups].values()
            assert sum(part["images"] for part in parts) == images
            dice = sum(part["images"] * part["dice"] for part in parts if part["images"])
            assert dice / images == pytest.approx(np.mean([float(row["dice"]) for row in rows]), abs=1e-4)
        small = evaluation[split]["by_size"]["small"]
        assert small["images"] == sum(float(row["lesion_fraction"]) < 0.05 for row in rows)
        touching = evaluation[split]["by_border"]["touching"]
        assert touching["images"] == sum(int(row["touches_border"]) for row in rows)


def test_what_is_compared_is_little_and_the_same_as_in_detail(world):
    detail = world.run()
    slim = world.json("metrics/evaluation.json")
    assert slim.keys() == {"val", "official_test", "ran"}
    for split in ("val", "official_test"):
        numbers = [
            value for part in slim[split].values() for value in (part.values() if isinstance(part, dict) else [part])
        ]
        assert len(numbers) <= 13, "`dvc exp show` has a column for each"
        for section, part in slim[split].items():
            found = detail[split][section]
            assert part == ({name: found[name] for name in part} if isinstance(part, dict) else found)
    assert slim["ran"]["predicted_in"] == slim["ran"]["trained_in"] == "float32"
    assert slim["ran"]["device"].startswith("CPU")


def test_every_metric_of_an_image_is_in_the_json_the_csv_and_has_words_for_the_page(world):
    evaluation = world.run()["val"]
    rows = [row for row in world.table("per_image") if row["split"] == "val"]
    labels = world.json("data/evaluation/detail.json")["labels"]
    for section, metrics in METRICS.items():
        for metric in metrics:
            mean = np.nanmean([float(row[metric.name] or "nan") for row in rows])  # of the images where it is defined
            assert evaluation[section][metric.mean] == pytest.approx(mean, abs=0.6 * 10**-metric.decimals + 1e-6)
            assert evaluation[section][f"{metric.mean}_low"] <= evaluation[section][metric.mean]
            assert labels[metric.name]


def test_pooled_scores_follow_from_the_counts_of_the_table(world):
    evaluation = world.run()["val"]
    rows = [row for row in world.table("per_image") if row["split"] == "val"]
    pooled = Counts(*(sum(int(row[name]) for row in rows) for name in Counts._fields))
    assert evaluation["pooled"]["dice"] == pytest.approx(scores.dice(pooled), abs=1e-6)


def test_duplicates_are_one_image_to_the_intervals(world):
    alone = world.run()["val"]
    samples = world.root / "data/processed/samples.csv"
    lines = samples.read_text(encoding="utf-8").splitlines()
    first = lines[1].split(",")[0]
    twins = [lines[0], *(f"{line.rpartition(',')[0]},{first}" for line in lines[1:6]), *lines[6:]]  # four of them val
    samples.write_text("\n".join(twins) + "\n", encoding="utf-8")
    grouped = world.run()["val"]
    assert grouped["pooled"]["dice"] == alone["pooled"]["dice"]
    assert "no_interval" not in alone
    assert grouped["no_interval"].startswith("9 images (duplicates counted once)")
    assert {row["group"] for row in world.table("per_image")} >= {first}
    assert grouped["pooled"]["dice_low"] is None


def test_what_is_known_of_the_images_has_breakdowns(world):
    rows = "".join(f"{name},{'nevus' if index % 2 else 'melanoma'}\n" for index, name in enumerate(world.truth))
    (world.root / "data/raw/metadata.csv").write_text(f"id,diagnosis\n{rows}", encoding="utf-8")
    groups = world.run()["val"]["by_diagnosis"]
    assert groups.keys() == {"melanoma", "nevus"}
    assert sum(part["images"] for part in groups.values()) == 12


def test_numbers_that_training_chose_by_are_called_so(world, network):
    assert "chosen_on" not in world.run()["val"]
    write_model(world.root, network, **{"train.keep": "best", "train.early_stopping": None})
    evaluation = world.run()
    assert evaluation["val"]["chosen_on"] == "the epoch (train.keep: best)"
    assert "chosen_on" not in evaluation["official_test"]
    assert world.json("metrics/evaluation.json")["val"]["chosen_on"] == "the epoch (train.keep: best)"


def test_the_curves_are_small_and_in_the_form_that_dvc_draws(world):
    evaluation = world.run()
    for name in ("thresholds", "calibration", "precision_recall", "roc"):
        rows = world.table(name)
        for split in ("val", "official_test"):
            part = [row for row in rows if row["split"] == split]
            assert 0 < len(part) <= 101
            assert all(float(value) >= 0 for row in part for key, value in row.items() if key != "split")
    # the sweep at the threshold used is the score reported
    at_half = next(row for row in world.table("thresholds") if float(row["threshold"]) == 0.5)
    assert float(at_half["dice"]) == pytest.approx(evaluation["val"]["pooled"]["dice"], abs=6e-5)


def test_repeated_runs_are_byte_identical_whatever_the_workers(world):
    world.run(submission=True, refinement="crf", workers=1)
    first = world.outputs()
    world.run(submission=True, refinement="crf", workers=3)
    assert world.outputs() == first


def test_the_threshold_decides(world):
    at_half = world.run()["val"]
    strict = world.run(threshold=0.9)["val"]
    assert strict["threshold"] == 0.9
    assert strict["pooled"]["recall"] < at_half["pooled"]["recall"]
    assert strict["areas"] == at_half["areas"], "the probabilities are the same"
    np.testing.assert_array_equal(world.array("predicted"), world.array("probabilities") / 255 >= 0.9)


def test_the_lowest_threshold_takes_every_pixel_that_is_not_zero(world):
    world.run(threshold=1e-12, keep_largest=True)
    kept, possible = world.array("predicted") != 0, world.array("probabilities") > 0
    assert kept.any()
    assert not (kept & ~possible).any()


def test_a_threshold_from_the_training_split_is_used_everywhere_else(world):
    evaluation = world.run(threshold_from="train")
    assert {part["threshold_from"] for part in evaluation.values()} == {"train"}
    assert len({part["threshold"] for part in evaluation.values()}) == 1
    val = evaluation["val"]
    np.testing.assert_array_equal(
        world.array("predicted"), world.array("probabilities") >= np.ceil(val["threshold"] * 255 - 1e-9)
    )


def test_a_threshold_from_val_is_used_on_the_official_split_only(world):
    fixed = world.run(threshold=0.3)
    chosen = world.run(threshold=0.3, threshold_from="val")
    assert (chosen["val"]["threshold"], chosen["val"]["threshold_from"]) == (0.3, "fixed")
    assert chosen["val"] == fixed["val"], "val is not scored at the threshold chosen on it"
    sweep = [row for row in world.table("thresholds") if row["split"] == "val"]
    best = max(sweep, key=lambda row: float(row["dice_per_image"]))
    official_test = chosen["official_test"]
    assert official_test["threshold_from"] == "val"
    at_chosen = next(row for row in sweep if float(row["threshold"]) == official_test["threshold"])
    assert float(at_chosen["dice_per_image"]) == float(best["dice_per_image"])


def test_a_threshold_is_not_chosen_on_the_only_split_it_would_be_scored_on(tmp_path, network):
    world = make(tmp_path, network, ["train", "val", "val"])
    with pytest.raises(InputError, match=r"evaluate\.threshold_from: found 'val'.*expected fixed, train"):
        world.run(threshold_from="val")
    assert world.outputs() == {}, "refused before anything is written"


@pytest.mark.parametrize(
    "change",
    [
        {"opening": 2},
        {"keep_largest": True},
        {"fill_holes": True},
        {"refinement": "crf"},
        {"test_time_augmentation": "flips"},
        {"test_time_augmentation": "flips_rotations"},
    ],
    ids=str,
)
def test_post_processing_changes_the_masks_and_its_effect_is_reported(world, change):
    before = world.run()
    probabilities, masks = world.array("probabilities"), world.array("predicted")
    assert all("without_postprocessing" not in part for part in before.values())
    after = world.run(**change)
    probabilistic = {"refinement", "test_time_augmentation"} & change.keys()
    assert np.array_equal(world.array("probabilities"), probabilities) == (not probabilistic)
    assert not np.array_equal(world.array("predicted"), masks)
    for split, part in after.items():
        without = part["without_postprocessing"]
        for averaging, alone in without.items():
            assert alone == {name: before[split][averaging][name] for name in alone}
        effect = part["postprocessing_effect"]
        gain = part["per_image"]["dice"] - before[split]["per_image"]["dice"]
        assert effect["dice"] == pytest.approx(gain, abs=2e-6)
        assert effect["comparisons"] == 3
        if part["images"] >= 10:
            assert effect["dice_low"] <= effect["dice"] <= effect["dice_high"]
    assert not list((world.root / "data/evaluation").glob(".*")), "nothing temporary stays"


def test_no_submission_leaves_a_readme_alone(world):
    world.run(submission=True)
    assert len(list((world.root / "data/submission").rglob("*.png"))) == 16
    world.run()
    assert [path.name for path in (world.root / "data/submission").rglob("*")] == ["README.txt"]


EMPTY, FULL = np.zeros((50, 70), np.uint8), np.ones((50, 70), np.uint8)
DIAGONAL = np.hypot(50, 70)
SPOT = np.pad(np.ones((10, 10), np.uint8), ((20, 20), (30, 30)))


def scores_of_one(root: Path, truth: np.ndarray, probability: float) -> tuple[World, dict]:
    world = make(root, constant_network(probability), ["train", "val"], [SPOT, truth])
    return world, world.run()["val"]


def test_empty_truth_and_empty_prediction_score_one(tmp_path):
    world, val = scores_of_one(tmp_path, EMPTY, 0.1)
    for averaging in ("pooled", "per_image"):
        assert set(val[averaging].values()) == {1.0, None}, "all that is defined; one image has no interval"
    assert val["official"]["threshold_jaccard"] == val["official"]["dice_native"] == 1.0
    assert val["official"]["failure_rate"] == 0.0
    assert val["boundary"]["hd95"] == val["boundary"]["missed_lesions"] == 0
    assert val["boundary"]["normalised_surface_distance"] == val["boundary"]["boundary_iou"] == 1
    assert val["areas"] == {
        "average_precision": None,
        "average_precision_reason": "no lesion pixel",
        "roc_auc": None,
        "roc_auc_reason": "no lesion pixel",
    }
    assert world.table("roc") == world.table("precision_recall") == []


def test_empty_truth_and_some_prediction_scores_zero(tmp_path):
    _, val = scores_of_one(tmp_path, EMPTY, 0.9)
    assert val["pooled"]["dice"] == val["official"]["jaccard_native"] == val["pooled"]["specificity"] == 0.0
    assert val["pooled"]["recall"] == 1.0, "nothing to miss"
    assert val["official"]["failure_rate"] == 1.0
    assert val["boundary"]["hd95"] == pytest.approx(DIAGONAL)
    assert val["boundary"]["missed_lesions"] == 0, "there was none"


def test_empty_prediction_of_a_lesion_scores_zero(tmp_path):
    world, val = scores_of_one(tmp_path, SPOT, 0.1)
    assert val["pooled"]["dice"] == val["pooled"]["precision"] == val["pooled"]["recall"] == 0.0
    assert val["boundary"]["hd95"] == pytest.approx(DIAGONAL)
    assert val["boundary"]["missed_lesions"] == 1
    assert float(world.table("per_image")[0]["hd95"]) == pytest.approx(DIAGONAL, abs=0.01)


def test_a_mask_that_covers_everything(tmp_path):
    world, val = scores_of_one(tmp_path, FULL, 0.9)
    assert set(val["pooled"].values()) == {1.0, None}
    assert val["boundary"]["hd95"] == 0.0
    assert val["areas"]["roc_auc_reason"] == "no background pixel"
    assert val["areas"]["average_precision"] == 1.0
    assert world.table("per_image")[0]["touches_border"] == "1"


def test_constant_probabilities_have_no_roc(tmp_path):
    world, val = scores_of_one(tmp_path, SPOT, 0.7)
    assert val["areas"]["roc_auc"] is None
    assert val["areas"]["roc_auc_reason"] == "all pixels have the same probability"
    assert world.table("roc") == []
    share = val["confusion"]["tp"] / (SIZE * SIZE)
    assert val["areas"]["average_precision"] == pytest.approx(share, abs=1e-6)


def test_one_image_has_no_interval(tmp_path, network):
    world = make(tmp_path, network, ["train", "val"])
    val = world.run()["val"]
    assert val["images"] == 1
    assert val["pooled"]["dice_low"] is val["pooled"]["dice_high"] is None
    assert val["pooled"]["dice"] == val["per_image"]["dice"]
    assert val["no_interval"].startswith("1 image (duplicates counted once)")


def test_nothing_to_evaluate_is_one_clear_line(tmp_path, network):
    world = make(tmp_path, network, ["train", "train"])
    with pytest.raises(InputError, match="no image outside the training split"):
        world.run()


def test_every_missing_original_is_named_before_anything_is_written(world):
    names = [row for row in world.truth if int(row[-7:]) in (2, 7)]
    for name in names:
        (world.root / f"data/raw/masks/{name}_segmentation.png").unlink()
    with pytest.raises(InputError) as raised:
        world.run()
    assert [name in problem for name, problem in zip(names, raised.value.problems, strict=True)] == [True, True]
    assert world.outputs() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, "evaluate.threshold: found 1.5, expected less than 1"),
        ({"threshold": "half"}, "evaluate.threshold: found 'half'"),
        ({"refinement": "guided_filter"}, "evaluate.refinement: found 'guided_filter', expected 'none' or 'crf'"),
        ({"opening": -1}, "evaluate.opening: found -1"),
        ({"treshold": 0.5}, "evaluate.treshold: unknown parameter; did you mean evaluate.threshold?"),
    ],
    ids=str,
)
def test_bad_parameters_are_one_clear_line(world, change, message):
    with pytest.raises(InputError) as raised:
        world.run(**change)
    assert message in str(raised.value)
    assert world.outputs() == {}


def test_the_command_exits_with_one_and_no_traceback(tmp_path):
    write_data(tmp_path, ["train", "val"])  # no weights
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    command = [sys.executable, str(REPOSITORY / "stages/evaluate.py")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("evaluate: error: models/trained/weights.safetensors: not found")
    assert "Traceback" not in result.stderr
