"""Augmentation: image and mask together, the same for the same (seed, epoch, sample), and as strong as it says."""

import multiprocessing
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from lesionseg.train.augment import Augmentation, RightAngleRotation
from tiny_training import augmenter

SIDE = 64
OPTIONS = {
    "default": {},
    "any rotation": {"rotations": "any"},
    "scale_shift light": {"scale_shift": "light"},
    "scale_shift strong": {"scale_shift": "strong"},
    "elastic light": {"elastic": "light"},
    "elastic strong": {"elastic": "strong"},
    "colour light": {"colour": "light"},
    "colour strong": {"colour": "strong"},
    "all": {"rotations": "any", "scale_shift": "strong", "elastic": "strong", "colour": "strong"},
}
OFF = {"flips": False, "rotations": "none"}


def sample(side=SIDE):
    """A lesion like a letter F, off the centre: no symmetry maps it on itself."""
    mask = np.zeros((side, side), np.uint8)
    unit = side // 16
    mask[2 * unit : 12 * unit, 3 * unit : 6 * unit] = 1
    mask[2 * unit : 4 * unit, 6 * unit : 11 * unit] = 1
    mask[6 * unit : 8 * unit, 6 * unit : 9 * unit] = 1
    noise = np.random.default_rng(0).integers(0, 20, (side, side, 3), dtype=np.uint8)
    return np.where(mask[..., None] > 0, 60, 190).astype(np.uint8) + noise, mask


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize("option", OPTIONS)
def test_image_and_mask_stay_aligned(option):
    """The lesion is darker than the skin before and after, so that the image itself shows where the mask belongs."""
    image, mask = sample()
    augment = augmenter(0, SIDE, **OPTIONS[option])
    moved = 0
    for index in range(40):
        changed, truth = augment(image, mask, epoch=1, sample=index)
        grey = changed.mean(2)
        threshold, _ = cv2.threshold(grey.astype(np.uint8), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        # the edge is a pixel of interpolation wide where the mask takes the nearest
        assert iou((grey <= threshold).astype(np.uint8), truth) > 0.9
        moved += not np.array_equal(truth, mask)
    assert moved > 20


@pytest.mark.parametrize("option", OPTIONS)
def test_shapes_types_and_inputs_are_kept(option):
    image, mask = sample()
    before = image.copy(), mask.copy()
    augment = augmenter(0, SIDE, **OPTIONS[option])
    for index in range(8):
        changed, truth = augment(image, mask, 0, index)
        assert changed.shape == image.shape
        assert truth.shape == mask.shape
        assert changed.dtype == truth.dtype == np.uint8
        assert changed.flags.c_contiguous
        assert truth.flags.c_contiguous
        assert set(np.unique(truth)) <= {0, 1}
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


def test_default_is_exactly_the_eight_symmetries_of_the_square_equally_often():
    image, mask = sample()
    augment = augmenter(0, SIDE)
    symmetries = {}
    for turns in range(4):
        for name, flipped in (("", mask), ("flipped", mask[:, ::-1])):
            symmetries[np.rot90(flipped, turns).tobytes()] = f"{turns} {name}"
    assert len(symmetries) == 8
    drawn = Counter()
    for index in range(1600):
        changed, truth = augment(image, mask, 0, index)
        drawn[symmetries[truth.tobytes()]] += 1
        assert np.array_equal(np.sort(changed, axis=None), np.sort(image, axis=None))  # no pixel is interpolated
    # 1600 draws of 8: 200 ± 13 each; five deviations to each side
    assert len(drawn) == 8
    assert all(135 < count < 265 for count in drawn.values())


def test_flips_and_rotations_have_a_switch_each():
    image, mask = sample()
    rotations = {np.rot90(mask, turns).tobytes() for turns in range(4)}
    flips = {flipped.tobytes() for flipped in (mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1])}
    only_rotations, only_flips = augmenter(0, SIDE, flips=False), augmenter(0, SIDE, rotations="none")
    assert {only_rotations(image, mask, 0, index)[1].tobytes() for index in range(60)} == rotations
    assert {only_flips(image, mask, 0, index)[1].tobytes() for index in range(60)} == flips


def test_all_off_changes_nothing():
    image, mask = sample()
    changed, truth = augmenter(0, SIDE, **OFF)(image, mask, 3, 5)
    assert np.array_equal(changed, image)
    assert np.array_equal(truth, mask)


@pytest.mark.parametrize("turns", range(4))
def test_rotation_by_opencv_is_numpys(turns):
    image, mask = sample()
    rotation = RightAngleRotation(p=1)
    assert np.array_equal(rotation.apply(image, factor=turns), np.rot90(image, turns))
    assert np.array_equal(rotation.apply_to_mask(mask, factor=turns), np.rot90(mask, turns))


# --- a pure function of (seed, epoch, sample) -------------------------------------------------------------------


def augmented(option, seed, epoch, index):
    image, mask = sample()
    changed, truth = augmenter(seed, SIDE, **OPTIONS[option])(image, mask, epoch, index)
    return changed.tobytes() + truth.tobytes()


@pytest.mark.parametrize("option", OPTIONS)
def test_order_and_history_change_nothing(option):
    image, mask = sample()
    augment = augmenter(0, SIDE, **OPTIONS[option])
    forward = {index: augment(image, mask, 2, index) for index in range(12)}
    for index in reversed(range(12)):
        augment(image, mask, 7, index)  # something in between
        again = augment(image, mask, 2, index)
        assert np.array_equal(again[0], forward[index][0])
        assert np.array_equal(again[1], forward[index][1])


def test_another_process_draws_the_same():
    keys = [("all", seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in range(2)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.starmap(augmented, keys) == [augmented(*key) for key in keys]


@pytest.mark.parametrize("option", ["default", "all"])
def test_epochs_samples_and_seeds_differ(option):
    image, mask = sample()

    def draws(seed, epochs, indices):
        augment = augmenter(seed, SIDE, **OPTIONS[option])
        return [augment(image, mask, epoch, index)[0].tobytes() for epoch in epochs for index in indices]

    reference = draws(0, [0], range(40))
    for others in (draws(0, [1], range(40)), draws(1, [0], range(40)), draws(0, [0], range(40, 80))):
        same = sum(first == second for first, second in zip(reference, others, strict=True))
        # two draws of eight symmetries agree in an eighth of the cases: 5 of 40, and 15 are five deviations more
        assert same < (16 if option == "default" else 1)
    # the seed is no offset of the epoch or the sample: (0, 1) is not (1, 0)
    assert draws(0, [1], [0, 1, 2, 3, 4, 5, 6, 7]) != draws(1, [0], [0, 1, 2, 3, 4, 5, 6, 7])


# --- strengths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "share"), [("light", 0.01), ("strong", 0.02)])
def test_elastic_moves_pixels_by_the_share_of_the_side_it_says(strength, share):
    """On a ramp of 1 grey level a pixel the change of the value is the displacement."""
    side = 256
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8), (side, side))
    image, mask = np.repeat(ramp[..., None], 3, axis=2).copy(), np.zeros((side, side), np.uint8)
    augment = augmenter(0, side, elastic=strength, **OFF)
    middle = slice(32, -32)  # off the borders, where pixels are reflected
    displaced = [
        augment(image, mask, 0, index)[0][middle, middle, 0].astype(float) - ramp[middle, middle] for index in range(10)
    ]
    assert np.sqrt(np.mean(np.square(displaced))) == pytest.approx(share * side, rel=0.2)


@pytest.mark.parametrize(
    ("strength", "smallest", "largest"), [("light", 0.9, 1.1), ("strong", 0.7, 1.4), ("close_up", 0.8, 1.8)]
)
def test_scale_stays_in_its_range_and_uses_it(strength, smallest, largest):
    side = 256
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (128, 128), 40, 1, -1)
    image = np.repeat(mask[..., None], 3, axis=2) * 100
    augment = augmenter(0, side, scale_shift=strength, **OFF)
    scales, shifts = [], []
    for index in range(150):
        truth = augment(image, mask, 0, index)[1]
        rows, columns = truth.any(1).nonzero()[0], truth.any(0).nonzero()[0]
        scales.append(np.sqrt(truth.sum() / mask.sum()))
        assert abs(len(rows) - len(columns)) <= 2  # a circle stays one
        shifts.append(rows.mean() - 128)
        shifts.append(columns.mean() - 128)
    assert smallest * 0.98 < min(scales) < smallest * 1.1
    assert largest * 0.9 < max(scales) < largest * 1.02
    assert 0.35 < np.mean(np.array(scales) < 1) < 0.65
    reach = {"light": 0.05, "strong": 0.1, "close_up": 0.1}[strength] * side
    assert 0.8 * reach < np.abs(shifts).max() < reach + 2


def test_colour_leaves_the_mask_and_changes_more_when_strong():
    image, mask = sample()
    changes = {}
    for strength in ("light", "strong"):
        augment = augmenter(0, SIDE, colour=strength, **OFF)
        results = [augment(image, mask, 0, index) for index in range(40)]
        assert all(np.array_equal(truth, mask) for _, truth in results)
        changes[strength] = np.mean([np.abs(changed.astype(int) - image).mean() for changed, _ in results])
    assert 2 < changes["light"] < changes["strong"] / 2


def test_any_rotation_turns_all_the_way():
    """The direction from the centre to a mark, over many draws, covers the circle evenly."""
    side = 128
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (64, 34), 4, 1, -1)
    image = np.repeat(mask[..., None], 3, axis=2)
    augment = augmenter(0, side, flips=False, rotations="any")
    angles = []
    for index in range(200):
        rows, columns = augment(image, mask, 0, index)[1].nonzero()
        angles.append(np.arctan2(rows.mean() - 64, columns.mean() - 64))
    assert np.abs(np.mean(np.exp(1j * np.array(angles)))) < 0.2
    assert (np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0] > 8).all()


# --- settings ---------------------------------------------------------------------------------------------------


def test_every_unknown_strength_is_named_in_one_error():
    choices = {"augment_rotations": "45", "augment_scale_shift": "light", "augment_elastic": "a", "augment_colour": "b"}
    with pytest.raises(ValidationError) as caught:
        Augmentation(augment_flips=True, **choices)
    assert [problem["loc"] for problem in caught.value.errors()] == [
        ("augment_rotations",),
        ("augment_elastic",),
        ("augment_colour",),
    ]
    assert "'none', 'light' or 'strong'" in str(caught.value)


def test_import_asks_no_server_and_warns_of_nothing():
    """albumentations looks for updates on import; without its switch this fails on the first connection."""
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import lesionseg.train.augment, cv2\n"
        "assert cv2.getNumThreads() == 1\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
