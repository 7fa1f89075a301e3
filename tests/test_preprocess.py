"""The preprocess stage on a raw folder: what it writes, and how it meets bad input."""

import csv
import hashlib
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter, minimum_filter

from lesionseg.common.errors import InputError
from lesionseg.common.parallel import ordered_map, ordered_process_map
from lesionseg.formats import groups, manifest
from lesionseg.formats.manifest import Pair
from lesionseg.formats.processed import Sample, open_arrays, read_samples
from lesionseg.preprocess.contact_sheet import LIMIT, contact_sheet, save_png
from lesionseg.preprocess.pairs import BadPair, ReadPair, read_pair, read_pairs

STAGE = Path(__file__).parents[1] / "stages/preprocess.py"
REAL = Path(os.environ.get("LESIONSEG_REAL_DATA", Path(__file__).parents[2] / "shared/data"))
PARAMETERS = yaml.safe_load((STAGE.parents[1] / "params.yaml").read_text(encoding="utf-8"))
DEFAULTS = PARAMETERS["preprocess"] | {
    "image_size": 32,
    "validation_fraction": 0.25,
    "test_fraction": 0.0,
    "seed": 0,
    "on_invalid": "fail",
    "duplicate_distance": 64,
    "pictures_in_git": True,
}


def photograph(seed: int, width: int = 90, height: int = 70) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    return Image.fromarray(np.clip(150 + gaussian_filter(noise, (3, 3, 0)) * 600, 0, 255).astype(np.uint8))


def lesion(seed: int, width: int = 90, height: int = 70) -> np.ndarray:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    radius = random.uniform(8, 30)
    return np.hypot(x - random.uniform(30, 60), y - random.uniform(25, 45)) < radius


class Raw:
    """A raw folder in the making: files first, then the manifest of what is there."""

    def __init__(self, top: Path, count: int = 12):
        self.top, self.raw, self.subset = top, top / "data/raw", {}
        for name in ("images", "masks"):
            (self.raw / name).mkdir(parents=True)
        for number in range(count):
            self.add(f"L{number:03d}", photograph(number), lesion(number))

    def add(self, name: str, image: Image.Image, mask: np.ndarray, subset: str = "training") -> None:
        image.save(self.image(name), quality=95)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(self.mask(name))
        self.subset[name] = subset

    def image(self, name: str) -> Path:
        return self.raw / f"images/{name}.jpg"

    def mask(self, name: str) -> Path:
        return self.raw / f"masks/{name}_segmentation.png"

    def run(self, expect: int = 0, workers: int | None = 2, **parameters) -> str:
        """Write manifest and parameters, run the stage, return what it said."""
        manifest.write(self.raw, [self._pair(name) for name in self.subset])
        content = {
            "preprocess": DEFAULTS | parameters,
            "runtime": {"device": "cpu", "workers": workers, "checkpoint_minutes": 2},
        }
        (self.top / "params.yaml").write_text(yaml.safe_dump(content))
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, chdir(self.top), redirect_stdout(said), redirect_stderr(said):
            patch.syspath_prepend(STAGE.parent)  # as Python does for a script
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(STAGE), run_name="__main__")
        assert ended.value.code == expect, said.getvalue()
        return said.getvalue()

    def _pair(self, name: str) -> Pair:
        digests = [
            hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64
            for path in (self.image(name), self.mask(name))
        ]
        paths = [path.relative_to(self.raw).as_posix() for path in (self.image(name), self.mask(name))]
        return Pair(name, *paths, 90, 70, *digests, self.subset[name], "folder")

    def samples(self) -> dict[str, Sample]:
        """By id, of both folders."""
        folders = [self.top / name for name in ("data/processed", "data/held_out")]
        return {sample.id: sample for folder in folders for sample in read_samples(folder)}

    def summary(self) -> dict:
        return json.loads((self.top / "data/summary/summary.json").read_text())

    def table(self, name: str) -> list[dict]:
        with open(self.top / "data/summary" / name, newline="") as file:
            return list(csv.DictReader(file))

    def outputs(self) -> dict[str, bytes]:
        folders = [self.top / name for name in ("data/processed", "data/held_out", "data/summary", "metrics", "plots")]
        return {
            path.relative_to(self.top).as_posix(): path.read_bytes()
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def raw(tmp_path) -> Raw:
    return Raw(tmp_path)


def test_arrays_and_table_hold_the_pairs(raw):
    raw.run()
    images, masks = open_arrays(raw.top / "data/processed")
    samples = read_samples(raw.top / "data/processed")
    assert images.shape == (12, 32, 32, 3)
    assert [sample.id for sample in samples] == sorted(raw.subset)
    assert sum(sample.split == "val" for sample in samples) == 3
    assert sum(sample.split == "train" for sample in samples) == 9
    for index, sample in enumerate(samples):
        expected = Image.open(raw.image(sample.id)).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(images[index].astype(int) - np.asarray(expected)).mean() < 1
        assert (sample.width, sample.height, sample.group) == (90, 70, sample.id)
        assert sample.lesion_fraction == round(float(lesion(index).mean()), 6)
        assert masks[index].mean() == pytest.approx(lesion(index).mean(), abs=0.02)
    assert set(np.unique(masks)) == {0, 1}


def test_outputs_do_not_depend_on_workers_or_the_run(raw):
    raw.run(workers=1)
    first = raw.outputs()
    assert set(first) == {
        "data/processed/images.npy",
        "data/processed/masks.npy",
        "data/processed/samples.csv",
        "data/held_out/images.npy",
        "data/held_out/masks.npy",
        "data/held_out/samples.csv",
        "data/summary/summary.json",
        "data/summary/dropped.csv",
        "data/summary/duplicates.csv",
        "metrics/data.json",
        "plots/samples.png",
    }
    raw.run(workers=3)
    assert raw.outputs() == first


def test_each_parameter_changes_what_it_says(raw):
    raw.add("L900", Image.open(raw.image("L000")).resize((60, 60)), lesion(0, 60, 60))
    raw.run()
    default = raw.samples()
    raw.run(image_size=48)
    assert open_arrays(raw.top / "data/processed")[0].shape == (13, 48, 48, 3)
    raw.run(validation_fraction=0.5)
    assert sum(sample.split == "val" for sample in raw.samples().values()) == 6
    raw.run(test_fraction=0.25)
    held_out = read_samples(raw.top / "data/held_out")
    assert [sample.split for sample in held_out] == ["test"] * 3
    validation = {name for name, sample in default.items() if sample.split == "val"}
    assert {name for name, sample in raw.samples().items() if sample.split == "val"} == validation, "training gives"
    raw.run(seed=1)
    assert raw.samples() != default
    assert default["L900"].group == "L000"
    raw.run(duplicate_distance=None)
    assert raw.samples()["L900"].group == "L900"
    drawn = raw.outputs()
    raw.run(duplicate_distance=None, pictures_in_git=False)
    withheld = raw.outputs()
    assert {path for path in drawn if drawn[path] != withheld[path]} == {"plots/samples.png"}
    with Image.open(raw.top / "plots/samples.png") as notice:
        assert notice.mode == "L"
        assert notice.height < 100


def test_duplicates_share_a_group_and_a_side(raw):
    for number in range(4):
        raw.image(f"L90{number}").write_bytes(raw.image("L003").read_bytes())
        raw.mask(f"L90{number}").write_bytes(raw.mask("L003").read_bytes())
        raw.subset[f"L90{number}"] = "training"
    raw.add("L910", photograph(5).resize((180, 140)), lesion(5, 180, 140))
    for seed in range(4):
        raw.run(seed=seed)
        samples = raw.samples()
        assert {samples[f"L90{number}"].group for number in range(4)} == {"L003"}
        assert len({samples[name].split for name in ("L003", "L900", "L901", "L902", "L903")}) == 1
        assert samples["L910"].group == "L005"
        assert samples["L910"].split == samples["L005"].split
    assert raw.summary()["duplicates"] == {
        "groups": 2,
        "images": 7,
        "largest_group": 5,
        "identical_pairs": 4,
        "near_pairs": 1,
        "held_out_and_trained": 0,
    }
    near = [row for row in raw.table("duplicates.csv") if row["kind"] == "near"]
    assert [(row["id"], row["other"]) for row in near] == [("L005", "L910")]


def test_mirrored_and_zoomed_copies_share_a_side(raw):
    width, height = 90, 70
    zoomed = photograph(5).resize((width, height), box=(10, 8, 10 + width / 1.3, 8 + height / 1.3))
    raw.add("L910", photograph(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT), lesion(3)[:, ::-1])
    raw.add("L920", zoomed, lesion(5))
    for seed in range(2):
        raw.run(seed=seed, image_size=128)
        samples = raw.samples()
        assert (samples["L910"].group, samples["L920"].group) == ("L003", "L005")
        assert samples["L910"].split == samples["L003"].split
        assert samples["L920"].split == samples["L005"].split
    assert [(row["id"], row["other"], row["kind"]) for row in raw.table("duplicates.csv")] == [
        ("L003", "L910", "near"),
        ("L005", "L920", "near"),
    ]
    raw.run(duplicate_distance=None, image_size=128)
    assert raw.samples()["L910"].group == "L910"


def test_photographs_of_one_lesion_share_a_side(raw):
    """groups.csv joins what no picture tells; what it lists and the data lack joins nothing."""
    raw.run()
    assert all(sample.group == name for name, sample in raw.samples().items()), "the pictures differ"
    lesions = [(f"L{number:03d}", f"lesion {number // 3}") for number in range(12)]
    groups.add(raw.raw, [*lesions, ("gone_1", "lesion 0"), ("gone_2", "lesion 1")])
    for seed in range(4):
        raw.run(seed=seed, test_fraction=0.25)
        samples = raw.samples()
        assert {sample.split for sample in samples.values()} == {"train", "val", "test"}
        for first in range(0, 12, 3):
            names = [f"L{number:03d}" for number in range(first, first + 3)]
            assert len({samples[name].split for name in names}) == 1
            assert {samples[name].group for name in names} == {names[0]}


def test_what_is_only_evaluated_lies_apart_and_never_changes_what_is_trained_on(raw):
    raw.run()
    trained = [(raw.top / "data/processed" / name).read_bytes() for name in ("images.npy", "masks.npy", "samples.csv")]
    raw.add("T1", photograph(100), lesion(100), "test")
    raw.add("V1", photograph(101), lesion(101), "validation")
    raw.add("T2", photograph(4).resize((180, 140)), lesion(4, 180, 140), "test")  # the picture of L004
    raw.add("external_1", photograph(102), lesion(102), "external")
    raw.add("external_2", photograph(5).resize((180, 140)), lesion(5, 180, 140), "external")  # the picture of L005
    raw.run()
    assert trained == [
        (raw.top / "data/processed" / name).read_bytes() for name in ("images.npy", "masks.npy", "samples.csv")
    ]
    held_out = {sample.id: sample.split for sample in read_samples(raw.top / "data/held_out")}
    assert held_out == {
        "T1": "official_test",
        "T2": "official_test",  # an official set stays as published; the leak is counted
        "V1": "official_validation",
        "external_1": "external",
    }
    assert raw.summary()["duplicates"]["held_out_and_trained"] == 1
    assert raw.summary()["dropped"] == {"invalid": 0, "duplicate_of_training": 1}
    (dropped,) = raw.table("dropped.csv")
    assert (dropped["id"], dropped["kind"]) == ("external_2", "duplicate_of_training")
    assert "images/L005.jpg" in dropped["reason"]
    images, _ = open_arrays(raw.top / "data/held_out")
    expected = Image.open(raw.image("V1")).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(images[list(held_out).index("V1")].astype(int) - np.asarray(expected)).mean() < 1


def test_a_split_that_came_with_the_data_is_kept(raw):
    for subset, names in (("given_val", ("L003", "L007")), ("given_test", ("L001",))):
        raw.subset |= dict.fromkeys(names, subset)
    said = raw.run(validation_fraction=0.5, test_fraction=0.4)
    expected = dict.fromkeys(raw.subset, "train") | {"L003": "val", "L007": "val", "L001": "test"}
    assert {name: sample.split for name, sample in raw.samples().items()} == expected
    assert [sample.id for sample in read_samples(raw.top / "data/held_out")] == ["L001"]
    assert "warning" not in said


def test_a_given_test_set_alone_leaves_the_validation_images_to_be_chosen(raw):
    raw.subset |= {"L001": "given_test", "L002": "given_test"}
    raw.run(test_fraction=0.4)
    splits = [sample.split for sample in raw.samples().values()]
    assert (splits.count("test"), splits.count("val"), splits.count("train")) == (2, 2, 8)


def test_one_lesion_on_both_sides_of_a_given_split_is_said(raw):
    """By groups.csv (L000 and L003) and by the picture (L005 and L910); the split is the user's and stays."""
    raw.add("L910", photograph(5).resize((180, 140)), lesion(5, 180, 140), "given_test")
    raw.subset |= {"L003": "given_val"}
    groups.add(raw.raw, [("L000", "x"), ("L003", "x"), ("L006", "y"), ("L007", "y")])
    said = raw.run()
    assert "2 groups of one picture, lesion or patient lie on several sides" in said
    assert "(L000, L005)" in said
    assert "download.keep_splits=false" in said
    samples = raw.samples()
    assert (samples["L003"].split, samples["L910"].split, samples["L000"].split) == ("val", "test", "train")


def test_external_pairs_of_a_training_lesion_are_left_out_with_a_word(raw):
    raw.add("external_1", photograph(102), lesion(102), "external")
    raw.add("external_2", photograph(103), lesion(103), "external")
    groups.add(raw.raw, [("L000", "lesion_id:x"), ("external_1", "lesion_id:x")])
    assert "1 external pairs are left out" in raw.run()
    assert [sample.id for sample in read_samples(raw.top / "data/held_out")] == ["external_2"]


def masks_become(raw: Raw, change, names=None) -> None:
    for name in names or raw.subset:
        mask = np.asarray(Image.open(raw.mask(name)))
        Image.fromarray(change(mask).astype(np.uint8)).save(raw.mask(name))


def outlined(mask: np.ndarray) -> np.ndarray:
    return mask * (minimum_filter(mask, 3) == 0)


WHOLE_SETS = {
    "empty": (lambda mask: mask * 0, "all 12 masks are empty"),
    "full": (lambda mask: mask * 0 + 255, "12 of 12 masks are lesion all over"),
    "inverted": (lambda mask: 255 - mask, r"1[0-2] of 12 masks have lesion along the rim.*download\.mask_lesion=black"),
}


@pytest.mark.parametrize("kind", WHOLE_SETS)
def test_masks_that_cannot_be_right_as_a_set_are_refused(raw, kind):
    change, message = WHOLE_SETS[kind]
    masks_become(raw, change)
    assert re.search(message, raw.run(expect=1))
    assert not (raw.top / "data/processed").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [("empty", "7 of 12 masks are empty"), ("full", "7 of 12 masks are les"), ("outline", "7 of 12 masks fill less")],
)
def test_masks_that_may_be_right_are_counted_and_named(raw, kind, message):
    masks_become(raw, outlined if kind == "outline" else WHOLE_SETS[kind][0], sorted(raw.subset)[:7])
    said = raw.run()
    assert message in said
    assert "(L000, L001, L002, L003, L004, …)" in said
    masks_become(raw, WHOLE_SETS["inverted"][0], ["L010"])
    assert "1 of 12 masks have lesion along the rim" in raw.run()


def test_an_external_set_of_healthy_skin_alone_is_possible(raw):
    raw.add("external_1", photograph(102), lesion(102) & False, "external")
    assert "1 of 1 masks are empty (external_1)" in raw.run()
    raw.add("external_1", photograph(102), lesion(102) | True, "external")
    assert "1 of 1 masks are lesion all over" in raw.run(expect=1)


def spoil(raw: Raw) -> dict[str, str]:
    """One of each fault: id -> what the message must say."""
    raw.image("L000").write_bytes(raw.image("L000").read_bytes()[:1500])
    raw.image("L001").unlink()
    raw.mask("L002").write_text("no picture")
    Image.fromarray(lesion(3, 70, 90)).save(raw.mask("L003"))
    photograph(4).save(raw.mask("L004"))
    raw.image("L005").write_bytes(b"")
    raw.mask("L005").write_bytes(b"")
    return {
        "L000": "images/L000.jpg: cannot be decoded: image file is truncated",
        "L001": "images/L001.jpg: not found",
        "L002": "masks/L002_segmentation.png: is not an image of a format read here",
        "L003": "masks/L003_segmentation.png: is 70×90 pixels, expected 90×70 as images/L003.jpg",
        "L004": "expected a binary mask",
        "L005": "images/L005.jpg: is empty",
    }


def test_fail_names_every_fault_at_once_and_writes_nothing(raw):
    faults = spoil(raw)
    said = raw.run(expect=1)
    for message in faults.values():
        assert message in said
    assert "masks/L005_segmentation.png: is empty" in said
    assert said.count("preprocess: error:") == 7
    assert raw.outputs() == {}
    assert [path.name for path in (raw.top / "data").iterdir()] == ["raw"]


def test_drop_leaves_them_out_and_reports_them(raw):
    faults = spoil(raw)
    raw.run(on_invalid="drop")
    assert not set(faults) & set(raw.samples())
    assert len(open_arrays(raw.top / "data/processed")[0]) == 6
    assert raw.summary()["dropped"]["invalid"] == 6
    rows = raw.table("dropped.csv")
    assert len(rows) == 7
    for name, message in faults.items():
        assert any(row["id"] == name and message in row["reason"] for row in rows)
    index = list(raw.samples()).index("L007")
    expected = Image.open(raw.image("L007")).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(open_arrays(raw.top / "data/processed")[0][index].astype(int) - np.asarray(expected)).mean() < 1


def test_an_empty_mask_is_allowed_and_reported(raw):
    raw.add("L000", photograph(0), np.zeros((70, 90)))
    raw.run()
    assert raw.samples()["L000"].lesion_fraction == 0
    splits = raw.summary()["splits"]
    assert splits["train"]["empty_masks"] + splits["val"]["empty_masks"] == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_real_truncated_images_stop_the_stage(raw):
    for path in (REAL / "truncated-jpeg").glob("*.jpg"):
        raw.add(path.stem, photograph(0), lesion(0))
        raw.image(path.stem).write_bytes(path.read_bytes())
    said = raw.run(expect=1)
    for name in ("ISIC_0012169", "ISIC_0019114", "ISIC_0022558"):
        assert f"data/raw/images/{name}.jpg: cannot be decoded: image file is truncated" in said


def test_nothing_usable_and_a_single_image_are_refused(tmp_path):
    raw = Raw(tmp_path, count=1)
    assert "expected at least 2 groups" in raw.run(expect=1)
    raw.image("L000").write_bytes(b"")
    assert "none of the 1 pairs is usable" in raw.run(expect=1, on_invalid="drop")
    assert raw.outputs() == {}


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("image_size", 100),
        ("image_size", 16),
        ("image_size", 2048),
        ("image_size", "256"),
        ("validation_fraction", 0),
        ("validation_fraction", 1.5),
        ("test_fraction", 1.0),
        ("test_fraction", 0.75),
        ("seed", -1),
        ("on_invalid", "ignore"),
        ("duplicate_distance", 97),
        ("duplicate_distances", 1),
    ],
)
def test_a_bad_parameter_is_named(raw, parameter, value):
    said = raw.run(expect=1, **{parameter: value})
    assert f"preprocess.{parameter}" in said
    assert raw.outputs() == {}


def test_a_missing_manifest_is_named(tmp_path):
    raw = Raw(tmp_path, count=2)
    raw.run()
    (raw.raw / "manifest.csv").unlink()
    result = subprocess.run([sys.executable, STAGE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "preprocess: error: data/raw/manifest.csv: not found; run the download stage again"
    ]


def test_ordered_map_holds_few_results_and_keeps_the_order():
    """The first result is slow and the consumer slower: no more than twice the workers' number may pile up."""
    started, consumed, worst, lock = 0, 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal started, worst
        with lock:
            started += 1
            worst = max(worst, started - consumed)
        time.sleep(0.03 if item == 0 else 0)
        return item

    results = []
    for result in ordered_map(work, range(60), workers=3):
        results.append(result)
        time.sleep(0.001)
        with lock:
            consumed += 1
    assert results == list(range(60))
    assert worst <= 6 + 1  # one more while its result is being taken


def test_ordered_map_passes_an_exception_on_and_stops():
    done = []

    def work(item: int) -> int:
        if item == 5:
            raise RuntimeError("five")
        done.append(item)
        return item

    with pytest.raises(RuntimeError, match="five"):
        list(ordered_map(work, range(1000), workers=2))
    assert len(done) < 20


def test_the_contact_sheet_is_small_and_outlines_the_lesions(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)  # noise: the worst for a PNG
    masks = np.zeros((40, 64, 64), np.uint8)
    masks[:, 16:48, 16:48] = 1
    samples = [Sample(f"L{number:03d}", "train", 64, 64, number / 40, f"L{number:03d}") for number in range(40)]
    sheet = contact_sheet(images, masks, samples)
    pixels = np.asarray(sheet)
    green = (pixels == (0, 255, 120)).all(axis=-1)
    assert 18 * 250 < green.sum() < 18 * 290  # a square of about 68 pixels a side, one pixel wide, in each tile
    save_png(sheet, tmp_path / "samples.png")
    assert (tmp_path / "samples.png").stat().st_size < LIMIT
    with Image.open(tmp_path / "samples.png") as saved:
        assert saved.size == sheet.size
        assert saved.info == {}  # no software, no time


def test_reading_leaves_no_global_setting_behind(raw):
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    files = [(f"images/{name}.jpg", f"masks/{name}_segmentation.png") for name in raw.subset]
    assert len(list(read_pairs(raw.raw, files, 32, workers=2))) == 12
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_processes_read_what_one_process_reads(raw):
    files = [(f"images/{name}.jpg", f"masks/{name}_segmentation.png") for name in raw.subset]
    files = [*(files * 6), ("images/none.jpg", files[0][1])]
    one, several = (list(read_pairs(raw.raw, files, 32, workers)) for workers in (1, 3))
    assert isinstance(one[-1], BadPair)
    assert one[-1] == several[-1]
    for left, right in zip(one[:-1], several[:-1], strict=True):
        for name, value in vars(left).items():
            np.testing.assert_array_equal(value, getattr(right, name))


def killed(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_worker_is_one_clear_message():
    with pytest.raises(InputError, match=r"worker processes was killed.*lower runtime\.workers"):
        list(ordered_process_map(killed, range(8), workers=2))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path):
    """The arrays of 60 and of 360 pairs at 256 pixels differ by 75 MB; the peak memory of the process must not."""
    program = """
import resource, sys
from pathlib import Path
from lesionseg.preprocess.dataset import DataSetSettings, process
from lesionseg.formats.manifest import Pair
count, out = int(sys.argv[1]), Path(sys.argv[2])
held_out = Path(f"{out}_held_out")
out.mkdir()
held_out.mkdir()
pairs = [
    Pair(f"I{i:04d}", "images/L000.jpg", "masks/L000_segmentation.png", 90, 70, str(i), str(i), "training", "folder")
    for i in range(count)
]
settings = DataSetSettings(256, 0.2, test_fraction=0.0, seed=0, drop_invalid=False, duplicate_distance=None)
process(Path("data/raw"), pairs, (out, held_out), settings, workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    raw = Raw(tmp_path, count=1)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}  # the code beside this test
    peaks = []
    for count in (60, 360):
        command = [sys.executable, "-c", program, str(count), f"out{count}"]
        peaks.append(int(subprocess.check_output(command, cwd=raw.top, env=environment, text=True)))
    assert (tmp_path / "out360/images.npy").stat().st_size > 70e6
    assert peaks[1] - peaks[0] < 10 * 1024  # kilobytes


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_stored_pixels_is_told_by_exif(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(1).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(lesion(1)).save(tmp_path / "a.png")
    (problem,) = read_pair(tmp_path, "a.jpg", "a.png", 32).problems
    assert f"EXIF orientation {orientation}: the mask was drawn on the stored pixels" in problem


@pytest.mark.parametrize(("orientation", "doubtful"), [(1, False), (2, True), (3, True), (4, True)])
def test_an_orientation_that_the_sizes_do_not_confirm_is_noted(tmp_path, orientation, doubtful):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(1).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(lesion(1)).save(tmp_path / "a.png")
    assert read_pair(tmp_path, "a.jpg", "a.png", 32).turned is doubtful


def test_an_orientation_that_the_mask_alone_has_is_said(tmp_path):
    exif = Image.Exif()
    photograph(1).save(tmp_path / "a.jpg")
    exif[0x0112] = 3
    Image.fromarray(lesion(1)).save(tmp_path / "a.png", exif=exif)
    assert read_pair(tmp_path, "a.jpg", "a.png", 32).turned
    exif[0x0112] = 6
    Image.fromarray(lesion(1)).save(tmp_path / "a.png", exif=exif)
    (problem,) = read_pair(tmp_path, "a.jpg", "a.png", 32).problems
    assert re.search("a.png: is .*turned by an EXIF orientation of its own, 6; remove it", problem)


@pytest.mark.parametrize("bits", [10, 12])
def test_few_bits_in_a_16_bit_image_are_refused(tmp_path, bits):
    grey = np.asarray(photograph(1).convert("L")).astype(np.uint16) << (bits - 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(lesion(1)).save(tmp_path / "m.png")
    (problem,) = read_pair(tmp_path, "a.png", "m.png", 32).problems
    assert "a.png: is nearly black" in problem
    Image.fromarray(grey << (16 - bits)).save(tmp_path / "a.png")
    assert isinstance(read_pair(tmp_path, "a.png", "m.png", 32), ReadPair)
