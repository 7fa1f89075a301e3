"""The exported ONNX file gives the model's masks: each step against Pillow, OpenCV or the evaluation, and the whole."""

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import lesionseg
from lesionseg.__main__ import main
from lesionseg.export.cleaning import clean
from lesionseg.export.enlarging import enlarge
from lesionseg.export.shrinking import shrink_photograph
from lesionseg.inference import native
from lesionseg.inference.postprocess import Cleaning
from lesionseg.networks import NAMES, build_network, weights
from lesionseg.predict.model import shrunk
from tiny_data import settle

SIZE = 32
RANDOM = np.random.default_rng(0)
SETTINGS = {
    "threshold": 0.4, "test_time_augmentation": "none", "refinement": "none",
    "opening": 0, "keep_largest": False, "fill_holes": False,
}  # fmt: skip
EVERYTHING = SETTINGS | {
    "test_time_augmentation": "flips_rotations", "refinement": "crf", "opening": 1, "keep_largest": True,
    "fill_holes": True,
}  # fmt: skip


def photograph(height: int, width: int) -> np.ndarray:
    coarse = Image.fromarray(RANDOM.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def model_file(folder, network: tuple[dict, dict], **settings) -> str:
    path = folder / "model.safetensors"
    weights.save(path, network[0], network[1] | {"settings": SETTINGS | settings})
    return str(path)


def session(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (70, 93), (93, 70), (20, 31), (7, 90), (1, 1), (400, 301)])
def test_photographs_are_shrunk_as_pillow_shrinks_them(height, width):
    pixels = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(shrink_photograph(torch.from_numpy(pixels), SIZE).permute(1, 2, 0), expected)


def test_a_very_tall_photograph_differs_by_one_grey_level_at_most():
    pixels = RANDOM.integers(0, 256, (400, 100, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(shrink_photograph(torch.from_numpy(pixels), SIZE).permute(1, 2, 0).numpy() - expected).max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "most"),
    [(32, 32, 0), (70, 93, 0), (333, 250, 0), (20, 31, 1), (16, 8, 1), (7, 90, 1), (90, 7, 1)],
)
def test_probabilities_are_enlarged_as_opencv_enlarges_them(height, width, most):
    probabilities = RANDOM.integers(0, 256, (SIZE, SIZE), np.uint8)
    found = enlarge(torch.from_numpy(probabilities), height, width).numpy()
    assert np.abs(found.astype(int) - native.resize(probabilities, (height, width))).max() <= most


@pytest.mark.parametrize(
    "cleaning", [Cleaning(opening=2), Cleaning(keep_largest=True), Cleaning(fill_holes=True), Cleaning(1, True, True)]
)
def test_masks_are_cleaned_pixel_for_pixel(cleaning):
    masks = [np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE)), np.indices((SIZE, SIZE)).sum(0) % 2]
    for threshold in (-0.5, 0, 0.3, 0.8):
        for coarse in (5, 9, 32):
            noise = cv2.resize(RANDOM.standard_normal((coarse, coarse)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            masks.append(noise > threshold)
    for mask in masks:
        mask = mask.astype(np.uint8)
        found = clean(torch.from_numpy(mask).float()[None, None], cleaning)[0, 0].numpy()
        np.testing.assert_array_equal(found, cleaning(mask))


@pytest.mark.parametrize("settings", [SETTINGS, EVERYTHING], ids=["plain", "everything"])
def test_the_file_gives_the_models_masks_at_every_size(network, tmp_path, settings, capsys):
    path, model = tmp_path / "lesion.onnx", model_file(tmp_path, network, **settings)
    assert main(["export", "--model", model, "--output", str(path), "--probabilities"]) == 0
    assert "checked with onnxruntime" in capsys.readouterr().out
    loaded, exported = lesionseg.load(model, "cpu"), session(path)
    lesions = 0
    for height, width in ((32, 32), (60, 81), (201, 120), (25, 20), (20, 90)):
        pixels = photograph(height, width)
        mask, probabilities = exported.run(None, {"photograph": pixels})
        [expected] = loaded.segment([shrunk(pixels, SIZE)])
        assert mask.dtype == probabilities.dtype == np.uint8
        assert mask.shape == probabilities.shape == (height, width)
        assert (mask != expected.mask).mean() <= 5e-3
        assert np.abs(probabilities.astype(int) - expected.probabilities).max() <= 2
        np.testing.assert_array_equal(mask, probabilities >= loaded.settings.level)
        lesions += expected.mask.sum()
    assert lesions, "the masks compared are not all empty"


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("quarter_unet", 1),
        ("unet", 2),
        *(pytest.param(name, 2, marks=pytest.mark.slow) for name in NAMES if name != "unet"),
    ],
)
def test_every_network_and_ensembles_can_be_exported(tmp_path, name, members):
    torch.manual_seed(0)
    built = build_network(name, 4, members)
    for network in built.members if members > 1 else [built]:
        settle(network, torch.rand(2, 3, 64, 64))
    metadata = {"network": name, "base_width": 4, "members": members, "image_size": 64}
    model = model_file(tmp_path, (built.state_dict(), metadata))
    assert main(["export", "--model", model, "--output", str(tmp_path / "x.onnx")]) == 0  # held against torch there


def test_the_file_says_what_it_is_and_is_the_same_each_time(network, tmp_path):
    model = model_file(tmp_path, network)
    for name in ("a.onnx", "b.onnx"):
        assert main(["export", "--model", model, "--output", str(tmp_path / name)]) == 0
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert str(tmp_path).encode() not in content
    assert b"site-packages" not in content
    assert b"lesionseg/export" not in content
    said = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert json.loads(said["settings"]) == SETTINGS
    assert said["image_size"] == str(SIZE)
    assert len(said["model_sha256"]) == 64
    assert [output.name for output in session(tmp_path / "a.onnx").get_outputs()] == ["mask"]


def test_a_file_that_does_something_else_is_not_written(network, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "lesionseg.export.graph.enlarge", lambda values, height, width: 255 - enlarge(values, height, width)
    )
    model, path = model_file(tmp_path, network), tmp_path / "x.onnx"
    assert main(["export", "--model", model, "--output", str(path)]) == 1
    assert "differs from the model's" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--output", "x.bin"], "ending in .onnx"),
        (["--output", "x.onnx", "--model", "nowhere"], "nowhere"),
        (["--output", "x.onnx", "--check", "no.jpg"], "no.jpg"),
    ],
)
def test_bad_input_is_one_line(network, tmp_path, capsys, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--model", model_file(tmp_path, network), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line
    assert not list(tmp_path.glob("x.*"))
