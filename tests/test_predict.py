"""Prediction of photographs of one's own: the masks that the evaluation scores, and what becomes of bad input."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import lesionseg
from lesionseg import Settings
from lesionseg.__main__ import main
from lesionseg.common.errors import InputError
from lesionseg.networks import weights
from tiny_data import run_stage, write_data, write_model, write_undecided_model

SIZE = 64


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return write_undecided_model(tmp_path_factory.mktemp("model") / "weights.safetensors", SIZE, images=8)


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


@pytest.fixture(scope="module")
def world(tmp_path_factory, network):
    """Photographs of every native size with masks, their arrays as preprocess makes them, and a trained network."""
    root = tmp_path_factory.mktemp("world")
    splits = ["val", "train", "val", "official_test", "external", "train", "val", "official_test"] * 2
    truth = write_data(root, splits, native_images=True)
    write_model(root, network)
    return root, dict(zip(truth, splits, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"threshold_from": "val", "keep_largest": True, "fill_holes": True},
        {"threshold_from": "train", "test_time_augmentation": "flips"},
        {"threshold": 0.3, "refinement": "crf", "opening": 1},
    ],
    ids=str,
)
def test_the_photographs_that_were_evaluated_get_the_very_masks_that_were_scored(world, tmp_path, settings):
    root, splits = world
    run_stage(root, "evaluate", submission=True, bootstrap_samples=100, **settings)
    model = str(root / "models/lesion-segmentation")
    assert main(["predict", str(root / "data/raw/images"), "--output", str(tmp_path), "--model", model]) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    evaluated = json.loads((root / "metrics/evaluation.json").read_text())
    lesions = 0
    for name, split in splits.items():
        scored = root / "data/submission" / split / f"{name}_segmentation.png"
        # No split is scored at a threshold chosen on it: val keeps the fixed one.
        if split == "train" or evaluated[split]["threshold"] != record["settings"]["threshold"]:
            continue
        found, expected = (np.asarray(Image.open(path)) for path in (tmp_path / scored.name, scored))
        np.testing.assert_array_equal(found, expected)
        lesions += 0 < expected.mean() < 255
    assert lesions > 3, "the masks compared are not all empty or full"
    assert ("val" in settings.values()) == (evaluated["val"]["threshold"] != record["settings"]["threshold"])


def test_a_model_that_was_not_evaluated_says_so_and_has_the_defaults(world, photographs, tmp_path, capsys):
    root, _ = world
    assert not (loaded := lesionseg.load(root / "models/trained", "cpu")).evaluated
    assert loaded.settings == Settings()
    assert main(["predict", str(photographs), "--output", str(tmp_path), "--model", str(root / "models/trained")]) == 0
    said = capsys.readouterr().out
    assert "weights.safetensors holds no settings" in said
    done = len(list(tmp_path.glob("*_segmentation.png")))
    assert f"predict: {done} of {done} photographs, in {tmp_path}" in said


def test_an_option_replaces_one_setting_of_the_model(photographs, tmp_path, network):
    settings = Settings(0.3, "flips", keep_largest=True, fill_holes=True)
    path = tmp_path / "model.safetensors"
    weights.save(path, network[0], network[1] | {"settings": settings.as_dict()})
    output = tmp_path / "out"
    arguments = ["--threshold", "0.4", "--no-keep-largest"]
    assert main(["predict", str(photographs), "--output", str(output), "--model", str(tmp_path), *arguments]) == 0
    said = json.loads((output / "run.json").read_text())["settings"]
    assert said == settings.as_dict() | {"threshold": 0.4, "keep_largest": False}


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {"threshold": 0.5},
        Settings().as_dict() | {"threshold": 2},
        Settings().as_dict() | {"threshold": "0.5"},
        Settings().as_dict() | {"opening": True},
        Settings().as_dict() | {"refinement": ["crf"]},
        Settings().as_dict() | {"command": "rm"},
    ],
    ids=str,
)
def test_settings_of_another_kind_are_refused_by_name(network, tmp_path, settings):
    path = tmp_path / "model.safetensors"
    weights.save(path, network[0], network[1] | {"settings": settings})
    with pytest.raises(InputError, match=r"model\.safetensors: (settings|threshold|opening|refinement): found"):
        lesionseg.load(tmp_path, "cpu")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds neither model\.safetensors nor weights\.safetensors"):
        lesionseg.load(tmp_path)


def test_from_python(model_file, photographs):
    model = lesionseg.load(model_file, "cpu")
    mask = model.predict(photographs / "a.jpg")
    assert mask.shape == (100, 150)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}


def test_a_file_an_array_and_a_picture_are_the_same_photograph(model_file, photographs):
    model = lesionseg.load(model_file, "cpu", threshold=0.45)
    path = photographs / "b.png"
    mask = model.predict(path)
    assert mask.any()
    with Image.open(path) as image:
        kinds = [str(path), np.asarray(image), image.copy(), image]
        for found in model.predict(kinds):
            np.testing.assert_array_equal(found, mask)
    assert model.predict([]) == []


def test_a_picture_is_turned_as_its_file_is(model_file, photographs, tmp_path):
    model = lesionseg.load(model_file, "cpu")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.tiff"):
        Image.open(photographs / "b.png").save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as image:
            mask = model.predict(image)
        assert mask.shape == (40, 90)
        np.testing.assert_array_equal(mask, model.predict(tmp_path / name))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7], ids=repr
)
def test_an_image_of_another_kind_is_refused(model_file, image):
    with pytest.raises(InputError, match=r"image: found .*expected"):
        lesionseg.load(model_file, "cpu").predict([image])


def test_the_table_and_the_record(model_file, photographs, tmp_path):
    assert (
        main(["predict", str(photographs), "--output", str(tmp_path), "--model", str(model_file), "--probabilities"])
        == 0
    )
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
    assert main(["predict", *arguments]) == 1
    said = capsys.readouterr().err
    assert "broken.jpg" in said
    assert "Traceback" not in said
    assert len(rows(output)) == 3


def test_files_of_one_name_keep_their_folders_and_inputs_stay(model_file, photographs, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes((photographs / "a.jpg").read_bytes())
    arguments = [str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(tmp_path), "--model", str(model_file)]
    assert main(["predict", *arguments]) == 0
    masks = {row["mask"] for row in rows(tmp_path)}
    assert len(masks) == 2
    assert all((tmp_path / mask).is_file() for mask in masks)
    assert (tmp_path / "one/a.jpg").read_bytes() == (photographs / "a.jpg").read_bytes()


def test_what_is_not_there_is_one_line_each(model_file, tmp_path, capsys):
    assert (
        main(["predict", str(tmp_path / "no"), str(tmp_path), "--output", str(tmp_path / "out"), "--model", "x"]) == 1
    )
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
    with pytest.raises(InputError, match="threshold"):
        Settings(1.0)


def test_a_file_of_the_users_is_never_replaced(model_file, photographs, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    own = output / "a_segmentation.png"
    own.write_bytes(b"drawn by hand")
    arguments = [str(photographs), "--output", str(output), "--model", str(model_file)]
    assert main(["predict", *arguments]) == 1
    assert own.read_bytes() == b"drawn by hand"
    assert [path.name for path in output.iterdir()] == [own.name], "nothing is written before all is checked"
    assert "not from an earlier run" in capsys.readouterr().err
    own.unlink()
    assert main(["predict", *arguments]) == 0
    assert main(["predict", *arguments]) == 0, "its own results are replaced"


def test_the_folder_of_the_photographs_is_no_output(model_file, photographs, capsys):
    before = {path.name: path.read_bytes() for path in photographs.iterdir()}
    assert main(["predict", str(photographs), "--output", str(photographs), "--model", str(model_file)]) == 1
    assert {path.name: path.read_bytes() for path in photographs.iterdir()} == before
    assert "is the folder of the photographs" in capsys.readouterr().err


def test_a_photograph_is_never_the_target_of_another(model_file, photographs, tmp_path, capsys):
    content = (photographs / "b.png").read_bytes()
    for name in ("a.png", "a_segmentation.png"):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / "a.png"), str(tmp_path / "a_segmentation.png")]
    assert main(["predict", *files, "--output", str(tmp_path), "--model", str(model_file)]) == 1
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
    assert main(["predict", str(photographs), "--output", str(tmp_path), "--model", str(model_file), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line
    assert "params.yaml" not in line
    assert not list(tmp_path.iterdir())


def test_results_are_named_below_the_folder_that_was_named(model_file, photographs, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/a.jpg").write_bytes((photographs / "a.jpg").read_bytes())
    (tmp_path / "in/a.jpg").write_bytes((photographs / "a.jpg").read_bytes())
    assert main(["predict", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(model_file)]) == 0
    assert {row["mask"] for row in rows(tmp_path / "out")} == {"a_segmentation.png", "deep/a_segmentation.png"}


def test_photographs_of_a_format_that_is_not_read_are_named_and_hidden_files_are_not(
    model_file, photographs, tmp_path, capsys
):
    """As a folder comes from a phone over a Mac."""
    (tmp_path / "in/.trash").mkdir(parents=True)
    content = (photographs / "a.jpg").read_bytes()
    (tmp_path / "in/a.jpg").write_bytes(content)
    (tmp_path / "in/.trash/b.jpg").write_bytes(content)
    (tmp_path / "in/._a.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "in/a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "in/notes.txt").write_text("of the day")
    assert main(["predict", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(model_file)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "a.HEIC: is not an image of a format read here" in said
    assert {row["mask"] for row in rows(tmp_path / "out")} == {"a_segmentation.png"}
