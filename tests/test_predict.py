"""Prediction of photographs of one's own: the masks that the evaluation scores, and what becomes of bad input."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lesionseg import predict
from lesionseg.common.errors import InputError
from lesionseg.evaluate.histogram import level
from lesionseg.evaluate.measurement import Maps, Truth, measure
from lesionseg.images.decoding import read_rgb
from lesionseg.inference.postprocess import Cleaning
from lesionseg.inference.prediction import predict as predict_arrays
from lesionseg.networks import build, weights
from lesionseg.predict.command import main

SIZE = 64


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(3)
    network = build("unet", 2).train()
    noise = torch.rand(8, 3, SIZE, SIZE)
    for _ in range(30):
        network(noise)  # running statistics, so that its logits vary about their mean
    with torch.no_grad():
        network.head.bias -= network.eval()(noise).mean()
    path = tmp_path_factory.mktemp("model") / "weights.safetensors"
    weights.save(path, network.state_dict(), {"network": "unet", "base_width": 2, "image_size": SIZE})
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three photographs of several sizes and formats, one larger and one smaller than the network's input."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for name, (width, height) in {"a.jpg": (150, 100), "b.png": (40, 90), "c.bmp": (64, 64)}.items():
        coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / name)
    return folder


def rows(output):
    with open(output / "lesions.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], predict.Settings()),
        (
            ["--threshold", "0.4", "--test-time-augmentation", "flips", "--keep-largest", "--fill-holes"],
            predict.Settings(0.4, "flips", Cleaning(keep_largest=True, fill_holes=True)),
        ),
    ],
)
def test_the_masks_are_those_that_the_evaluation_scores(model_file, photographs, tmp_path, arguments, settings):
    assert main([str(photographs), "--output", str(tmp_path), "--model", str(model_file), *arguments]) == 0
    network, _ = weights.load(model_file)
    files = sorted(photographs.iterdir())
    read = [read_rgb(path, SIZE) for path in files]
    images = np.stack([pixels for pixels, _ in read])
    predictions = predict_arrays(network, images, range(len(files)), "cpu", settings.test_time_augmentation)
    lesions = 0
    for path, (_, (width, height)), prediction in zip(files, read, predictions, strict=True):
        truth = Truth(images[0], np.zeros((SIZE, SIZE), np.uint8), np.zeros((height, width), np.uint8))
        maps = Maps(prediction.averaged, prediction.plain)
        scored = measure(maps, truth, level(settings.threshold), settings.cleaning).predicted_native
        with Image.open(tmp_path / f"{path.stem}_segmentation.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), scored * 255)
        lesions += scored.sum()
    assert lesions, "the masks compared are not all empty"


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.5, 0.998])
def test_a_threshold_means_what_it_means_in_the_evaluation(threshold):
    assert predict.Settings(threshold).level == level(threshold)


def test_from_python(model_file, photographs):
    mask = predict.load(model_file).predict(photographs / "a.jpg")
    assert mask.shape == (100, 150)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}


def test_the_table_and_the_record(model_file, photographs, tmp_path):
    assert main([str(photographs), "--output", str(tmp_path), "--model", str(model_file), "--probabilities"]) == 0
    for row in rows(tmp_path):
        mask = np.asarray(Image.open(tmp_path / row["mask"])) > 0
        assert int(row["lesion_pixels"]) == mask.sum()
        assert (int(row["width"]), int(row["height"])) == mask.shape[::-1]
        if mask.any():
            box = mask[int(row["top"]) : int(row["bottom"]), int(row["left"]) : int(row["right"])]
            assert box.sum() == mask.sum()
            assert all(side.any() for side in (box[0], box[-1], box[:, 0], box[:, -1]))
        edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        assert int(row["touches_edge"]) == edge
    record = json.loads((tmp_path / "run.json").read_text())
    assert set(record["files"].values()) == {"done"}
    assert len(record["model_sha256"]) == 64


def test_bad_files_are_named_and_the_rest_is_done(model_file, photographs, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes((photographs / "a.jpg").read_bytes()[:300])
    output = tmp_path / "out"
    arguments = [str(photographs), str(tmp_path / "broken.jpg"), "--output", str(output), "--model", str(model_file)]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "broken.jpg" in said
    assert "Traceback" not in said
    assert len(rows(output)) == 3


def test_files_of_one_name_keep_their_folders_and_inputs_stay(model_file, photographs, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes((photographs / "a.jpg").read_bytes())
    arguments = [str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(tmp_path), "--model", str(model_file)]
    assert main(arguments) == 0
    masks = {row["mask"] for row in rows(tmp_path)}
    assert len(masks) == 2
    assert all((tmp_path / mask).is_file() for mask in masks)
    assert (tmp_path / "one/a.jpg").read_bytes() == (photographs / "a.jpg").read_bytes()


def test_what_is_not_there_is_one_line_each(model_file, tmp_path, capsys):
    assert main([str(tmp_path / "no"), str(tmp_path), "--output", str(tmp_path / "out"), "--model", "x"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
    with pytest.raises(InputError, match="threshold"):
        predict.Settings(1.0)


def test_a_file_of_the_users_is_never_replaced(model_file, photographs, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    own = output / "a_segmentation.png"
    own.write_bytes(b"drawn by hand")
    arguments = [str(photographs), "--output", str(output), "--model", str(model_file)]
    assert main(arguments) == 1
    assert own.read_bytes() == b"drawn by hand"
    assert [path.name for path in output.iterdir()] == [own.name], "nothing is written before all is checked"
    assert "not of an earlier run" in capsys.readouterr().err
    own.unlink()
    assert main(arguments) == 0
    assert main(arguments) == 0, "its own results are replaced"


def test_the_folder_of_the_photographs_is_no_output(model_file, photographs, capsys):
    before = {path.name: path.read_bytes() for path in photographs.iterdir()}
    assert main([str(photographs), "--output", str(photographs), "--model", str(model_file)]) == 1
    assert {path.name: path.read_bytes() for path in photographs.iterdir()} == before
    assert "is the folder of the photographs" in capsys.readouterr().err


def test_a_photograph_is_never_the_target_of_another(model_file, photographs, tmp_path, capsys):
    content = (photographs / "b.png").read_bytes()
    for name in ("a.png", "a_segmentation.png"):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / "a.png"), str(tmp_path / "a_segmentation.png")]
    assert main([*files, "--output", str(tmp_path), "--model", str(model_file)]) == 1
    assert (tmp_path / "a_segmentation.png").read_bytes() == content
    assert "is one of the photographs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--device", "foo"], "--device"),
        (["--device", "cuda:99"], "--device"),
        (["--opening", "-1"], "--opening"),
        (["--opening", "65"], "--opening"),
        (["--workers", "-3"], "--workers"),
        (["--output", "/dev/null/masks"], "/dev/null"),
        (["--output", "/proc/masks"], "/proc"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(model_file, photographs, tmp_path, capsys, arguments, named):
    assert main([str(photographs), "--output", str(tmp_path), "--model", str(model_file), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line
    assert "params.yaml" not in line
    assert not list(tmp_path.iterdir())


def test_results_are_named_below_the_folder_that_was_named(model_file, photographs, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/a.jpg").write_bytes((photographs / "a.jpg").read_bytes())
    (tmp_path / "in/a.jpg").write_bytes((photographs / "a.jpg").read_bytes())
    assert main([str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(model_file)]) == 0
    assert {row["mask"] for row in rows(tmp_path / "out")} == {"a_segmentation.png", "deep/a_segmentation.png"}
