"""Groups of images where segmentation may fail: by measured properties and by what is known of the images."""

import cv2
import numpy as np
import pytest

from lesionseg.evaluate.breakdowns import MOST, OTHER, UNKNOWN, by_metadata, by_property
from lesionseg.evaluate.photograph import contrast, hair

SKIN, MOLE = (225, 180, 160), (120, 70, 50)


def photograph(colour=MOLE, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A disc of `colour` on skin, uint8 (size, size, 3), and its mask."""
    y, x = np.mgrid[:size, :size]
    mask = (np.hypot(x - size / 2, y - size / 2) < size / 5).astype(np.uint8)
    return np.where(mask[..., None], np.uint8(colour), np.uint8(SKIN)), mask


def members(groups: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {group: np.flatnonzero(chosen).tolist() for group, chosen in groups.items()}


def test_properties_are_cut_where_a_group_begins():
    values = {
        "lesion_fraction": np.array([0.0, 0.0499, 0.05, 0.25, 1.0]),
        "touches_border": np.array([0.0, 1, 0, 1, 0]),
        "contrast": np.array([2, 15, 29.9, 30, np.nan]),
        "hair": np.array([0, 0.029, 0.03, 0.5, 0]),
    }
    found = {name: members(groups) for name, groups in by_property(values).items()}
    assert found == {
        "by_size": {"small": [0, 1], "medium": [2], "large": [3, 4]},
        "by_border": {"inside": [0, 2, 4], "touching": [1, 3]},
        "by_contrast": {"low": [0], "medium": [1, 2], "high": [3]},  # the image without lesion is in none
        "by_hair": {"little": [0, 1, 4], "much": [2, 3]},
    }


def test_columns_of_text_have_a_group_a_value():
    known = {"a": {"diagnosis": "nevus", "camera": "x"}, "b": {"diagnosis": "melanoma", "camera": "x"}, "c": {}}
    found = by_metadata(["a", "b", "c", "d"], known)
    assert members(found["by_diagnosis"]) == {"melanoma": [1], "nevus": [0], UNKNOWN: [2, 3]}
    assert by_metadata(["a", "b"], known).keys() == {"by_diagnosis"}, "one camera for all groups nothing"


def test_rare_values_are_put_together_and_names_of_single_images_left_out():
    ids = [f"{number}" for number in range(40)]
    sites = {name: {"site": f"s{min(index, 9 + index % 3)}", "name": f"n{index}"} for index, name in enumerate(ids)}
    found = by_metadata(ids, sites)
    assert found.keys() == {"by_site"}
    assert len(found["by_site"]) == MOST + 1
    assert sum(chosen.sum() for chosen in found["by_site"].values()) == 40
    assert found["by_site"][OTHER].sum() > 0


def test_ages_have_fixed_ranges_and_other_numbers_thirds():
    ages = ["5", "29", "30", "45", "49", "50", "60", "69", "70", "85", "", "unknown", "N/A"]
    known = {f"{index}": {"age": age, "ratio": age} for index, age in enumerate(ages)}
    found = by_metadata(list(known), known)
    assert members(found["by_age"]) == {
        "0 to below 30": [0, 1],
        "30 to below 50": [2, 3, 4],
        "50 to below 70": [5, 6, 7],
        "from 70": [8, 9],
        UNKNOWN: [10, 11, 12],
    }
    assert [len(rows) for rows in members(found["by_ratio"]).values()] == [3, 3, 4, 3]


def test_contrast_is_the_colour_difference_to_the_skin_around():
    image, mask = photograph()
    lab = cv2.cvtColor(np.float32([[MOLE, SKIN]]) / 255, cv2.COLOR_RGB2LAB)[0]
    assert contrast(image, mask) == pytest.approx(np.linalg.norm(lab[0] - lab[1]), abs=1e-3)
    faint, _ = photograph((215, 170, 150))
    assert contrast(faint, mask) < 5
    image[:, :40] = image[:, -40:] = 0  # the dark frame of the lens is not skin
    assert contrast(image, mask) == pytest.approx(np.linalg.norm(lab[0] - lab[1]), abs=1e-3)


def test_without_lesion_or_without_skin_there_is_no_contrast():
    image, mask = photograph()
    assert np.isnan(contrast(image, np.zeros_like(mask)))
    assert np.isnan(contrast(image, np.ones_like(mask)))


def test_hair_is_long_thin_and_dark():
    image, _ = photograph()
    assert hair(image) == 0
    hairy = image.copy()
    for x in range(20, 240, 16):
        cv2.line(hairy, (x, 10), (x + 30, 240), (40, 30, 25), 2)
    assert hair(hairy) > 0.05
    stubble = image.copy()
    for x in range(20, 240, 16):
        cv2.line(stubble, (x, 30), (x + 3, 45), (40, 30, 25), 2)
    assert hair(stubble) == 0, "too short to tell"
    bright = image.copy()
    cv2.line(bright, (20, 10), (230, 240), (255, 250, 245), 2)
    assert hair(bright) == 0
