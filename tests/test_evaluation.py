"""Evaluating thousands of images: memory does not grow with the images, and order and splits are kept."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesionseg.common.errors import InputError
from lesionseg.evaluate.evaluation import Case, Outputs, cases, evaluate
from lesionseg.evaluate.measurement import Maps
from lesionseg.evaluate.split_scores import Setting
from lesionseg.formats.processed import Processed, Sample
from lesionseg.scoring.bootstrap import Resampling

FIXED = {"val": Setting()}
NATIVE = (200, 150)


def run(folder: Path, images: int) -> dict:
    """Evaluate `images` times the same original mask of 30,000 pixels."""
    mask = np.zeros(NATIVE, np.uint8)
    mask[40:160, 30:100] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    np.save(folder / "probabilities.npy", np.tile(np.uint8(100 + 5 * np.arange(16)), (images, 16, 1)))
    probabilities = np.load(folder / "probabilities.npy", mmap_mode="r")
    masks = np.broadcast_to(np.uint8(np.arange(16) > 7), probabilities.shape)
    data = Processed([], np.broadcast_to(np.uint8(90), (*probabilities.shape, 3)), masks)
    held_out = [Case(f"{index:06d}", "val", index, folder / "mask.png", f"{index:06d}") for index in range(images)]
    outputs = Outputs(folder / "predicted.npy")
    return evaluate(held_out, data, Maps(probabilities, probabilities), FIXED, outputs, workers=2)


def peak(folder: Path, images: int) -> int:
    tracemalloc.start()
    try:
        run(folder, images)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_images(tmp_path):
    run(tmp_path, 8)  # what is imported and cached at first use
    few, many = peak(tmp_path, 50), peak(tmp_path, 550)
    kept = (many - few) / 500
    assert kept < 3000, f"{kept:.0f} bytes stay for every image; one native mask would be {NATIVE[0] * NATIVE[1]}"


def test_a_thousand_images_are_reported_in_order(tmp_path):
    scored = run(tmp_path, 1000)["val"]
    assert [row["id"] for row in scored.table()] == [f"{index:06d}" for index in range(1000)]
    detail = scored.detail(Resampling(200, 0), {})
    assert detail["images"] == 1000
    assert detail["confusion"]["tp"] + detail["confusion"]["fn"] == 1000 * 16 * 8
    assert detail["per_image"]["dice"] == pytest.approx(detail["pooled"]["dice"], abs=1e-6), "all are the same"
    assert np.load(tmp_path / "predicted.npy").shape == (1000, 16, 16)


def test_an_error_in_one_image_is_raised_and_leaves_no_half_file(tmp_path):
    np.save(tmp_path / "p.npy", np.zeros((2, 16, 16), np.uint8))
    probabilities = np.load(tmp_path / "p.npy", mmap_mode="r")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    held_out = [Case("a", "val", 0, tmp_path / "bad.png", "a")]
    data = Processed([], probabilities, probabilities)
    with pytest.raises(InputError, match=r"bad\.png"):
        evaluate(held_out, data, Maps(probabilities, probabilities), FIXED, Outputs(tmp_path / "o.npy"), 1)
    assert not list(tmp_path.glob("*o.npy*"))


def test_val_comes_first_then_the_held_out_splits(tmp_path):
    (tmp_path / "m.png").touch()
    splits = ["official_test", "val", "train", "official_validation", "val", "external", "test"]
    samples = [Sample(str(index), split, 1, 1, 0.0, "") for index, split in enumerate(splits)]
    found = cases(samples, {sample.id: tmp_path / "m.png" for sample in samples})
    assert [(case.id, case.row) for case in found] == [
        ("1", 1),
        ("4", 4),
        ("6", 6),
        ("3", 3),
        ("0", 0),
        ("5", 5),
    ]


def test_a_processed_image_that_is_not_in_the_raw_data_is_named(tmp_path):
    samples = [Sample("gone", "val", 1, 1, 0.0, "")]
    with pytest.raises(InputError, match="gone: not in the raw data"):
        cases(samples, {})
