"""What `lesionseg predict` writes on request: overlay, probabilities, outlines, scores; whole files after Ctrl-C."""

import csv
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from lesionseg.__main__ import main
from lesionseg.predict import command
from lesionseg.predict.lesions import components
from lesionseg.predict.pictures import overlay, write_png
from lesionseg.predict.rings import mask_from_rings
from lesionseg.predict.targets import written_before
from tiny_data import write_undecided_model

SIZE = 32
SIZES = {"a.jpg": (150, 100), "b.png": (40, 90), "deep/c.bmp": (64, 64), "d.png": (31, 33)}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return write_undecided_model(tmp_path_factory.mktemp("model") / "weights.safetensors", SIZE, images=4)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    (folder / "deep").mkdir()
    for name, size in SIZES.items():
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
        coarse.resize(size, Image.Resampling.NEAREST).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """True masks of all but one: by the same name, with two endings, one of them in two numbered parts."""
    folder = tmp_path_factory.mktemp("truth")
    random = np.random.default_rng(1)
    parts = {"a_segmentation.png": "a.jpg", "more/b.png": "b.png", "c_mask_0.png": "deep/c.bmp"}
    (folder / "more").mkdir()
    for name, photograph in (parts | {"c_mask_1.png": "deep/c.bmp"}).items():
        width, height = SIZES[photograph]
        Image.fromarray((random.random((height, width)) < 0.4).astype(np.uint8) * np.uint8(255)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def result(model_file, photographs, truth, tmp_path_factory):
    """Everything at once."""
    output = tmp_path_factory.mktemp("all") / "out"
    arguments = ["--overlay", "--probabilities", "npy", "--outlines", "--truth", str(truth), "--threshold", "0.5"]
    assert main(["predict", str(photographs), "--output", str(output), "--model", str(model_file), *arguments]) == 0
    return output


def rows(output):
    with open(output / "lesions.csv", encoding="utf-8") as file:
        return {row["mask"].removesuffix("_segmentation.png"): row for row in csv.DictReader(file)}


def mask_of(output, name):
    with Image.open(output / f"{name}_segmentation.png") as image:
        return (np.asarray(image) > 0).astype(np.uint8)


def size_of(path):
    with Image.open(path) as image:
        return image.size


NAMES = ("a", "b", "deep/c", "d")


def test_every_file_is_there_and_named_in_the_record(result):
    endings = ("_segmentation.png", "_overlay.jpg", "_probabilities.npy", "_outlines.geojson")
    expected = {f"{name}{ending}" for name in NAMES for ending in endings} | {"lesions.csv", "run.json", "coco.json"}
    assert {path.relative_to(result).as_posix() for path in result.rglob("*") if path.is_file()} == expected
    assert set(json.loads((result / "run.json").read_text())["written"]) == expected
    assert any(0 < mask_of(result, name).mean() < 1 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_probabilities_threshold_to_the_mask(result, name):
    probabilities = np.load(result / f"{name}_probabilities.npy")
    assert probabilities.dtype == np.float32
    mask = mask_of(result, name)
    np.testing.assert_array_equal(probabilities >= 0.5, mask)
    row = rows(result)[name]
    undecided = (probabilities > 0.25) & (probabilities < 0.75)
    assert float(row["undecided_fraction"]) == pytest.approx(undecided.mean(), abs=1e-6)
    if mask.any():
        assert float(row["mean_probability"]) == pytest.approx(probabilities[mask == 1].mean(), abs=1e-4)
    assert int(row["components"]) == cv2.connectedComponents(mask, connectivity=4)[0] - 1


def test_components_are_those_of_labelling_every_pixel():
    """Rings around islands, single rows and columns, with and without pixels that touch at a corner alone."""
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width, zoom = random.integers(1, 12, 3)
        cells = (random.random((height, width)) < random.choice([0.1, 0.5, 0.8])).astype(np.uint8)
        cells[random.integers(height), random.integers(width)] = 1
        mask = np.kron(cells, np.ones((zoom, zoom), np.uint8))
        assert components(mask) == cv2.connectedComponents(mask, connectivity=4)[0] - 1


@pytest.mark.parametrize("name", NAMES)
def test_geojson_is_the_mask_in_corners_of_pixels(result, name):
    content = json.loads((result / f"{name}_outlines.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    mask = mask_of(result, name)
    rings = []
    for feature in content["features"]:
        assert feature["properties"]["classification"]["name"] == "lesion"
        assert feature["geometry"]["type"] == "Polygon"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            rings.append(np.array(ring[:-1]))
    np.testing.assert_array_equal(mask_from_rings(rings, mask.shape), mask)
    assert len(content["features"]) == int(rows(result)[name]["components"])


def test_coco_is_the_masks_with_their_boxes_and_areas(result):
    content = json.loads((result / "coco.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["lesion"]
    assert [each["id"] for each in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    kinds = set()
    for image in content["images"]:
        name = next(name for name, row in rows(result).items() if row["image"] == image["file_name"])
        mask, found = mask_of(result, name), 0
        assert mask.shape == (image["height"], image["width"])
        for annotation in content["annotations"]:
            if annotation["image_id"] != image["id"]:
                continue
            part = decoded(annotation["segmentation"], mask.shape)
            kinds.add(type(annotation["segmentation"]))
            assert annotation["area"] == part.sum()
            left, top, width, height = annotation["bbox"]
            assert cv2.boundingRect(part) == (left, top, width, height)
            found = found + part
        np.testing.assert_array_equal(found, mask)
    assert kinds == {list, dict}, "with and without holes"


def decoded(segmentation, shape):
    """As COCO defines them: polygons, or runs of 0 and 1 down the columns."""
    if isinstance(segmentation, list):
        return mask_from_rings([np.array(ring).reshape(-1, 2) for ring in segmentation], shape)
    values = np.arange(len(segmentation["counts"])) % 2
    return np.repeat(values, segmentation["counts"]).astype(np.uint8).reshape(segmentation["size"][::-1]).T


def test_scores_against_the_true_masks(result, truth):
    found = rows(result)
    parts = {"a": ["a_segmentation.png"], "b": ["more/b.png"], "deep/c": ["c_mask_0.png", "c_mask_1.png"]}
    pairs = []
    for name, files in parts.items():
        true = np.max([np.asarray(Image.open(truth / file)) > 0 for file in files], axis=0).ravel()
        predicted = mask_of(result, name).ravel()
        pairs.append((true, predicted))
        assert float(found[name]["dice"]) == pytest.approx(f1_score(true, predicted), abs=1e-4)
        assert float(found[name]["iou"]) == pytest.approx(jaccard_score(true, predicted), abs=1e-4)
    assert found["d"]["dice"] == ""
    said = json.loads((result / "run.json").read_text())["truth"]
    assert (said["scored"], said["not_scored"]) == (3, 1)
    true, predicted = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert said["pooled"]["dice"] == pytest.approx(f1_score(true, predicted), abs=1e-4)
    mean = np.mean([float(found[name]["iou"]) for name in parts])
    assert said["per_image_mean"]["iou"] == pytest.approx(mean, abs=2e-4)


def test_the_overlay_is_the_photograph_but_for_its_outline(result, photographs):
    with Image.open(result / "d_overlay.jpg") as image, Image.open(photographs / "d.png") as original:
        drawn, before = np.asarray(image).astype(int), np.asarray(original)
    assert drawn.shape == before.shape
    changed = np.abs(drawn - before).max(2) > 100
    mask = mask_of(result, "d")
    border = cv2.dilate(mask, np.ones((9, 9))) - cv2.erode(mask, np.ones((9, 9)), borderValue=0)
    assert changed.any()
    assert border[changed].mean() > 0.9, "only near the border of the lesion"


@pytest.mark.parametrize("side", [1, 2, 5, 300, 3000])
def test_an_overlay_can_be_seen_at_every_size(side):
    grey = np.full((side, side, 3), 128, np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side - side // 4, side // 4 : side - side // 4] = 1
    drawn = overlay(grey, {"predicted": mask, "truth": np.ones_like(mask)})
    if side >= 300:
        orange = (np.abs(drawn.astype(int) - (230, 159, 0)).max(2) < 40).sum()
        assert side / 2 * 4 * side / 320 < orange < side / 2 * 4 * side / 80
        np.testing.assert_array_equal(overlay(grey, {"predicted": 0 * mask}), grey)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (40, 63)])
def test_a_png_holds_every_value(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_true_masks_among_the_photographs_are_not_predicted(model_file, photographs, tmp_path):
    for name in ("a.png", "a_mask.png"):
        Image.fromarray(np.eye(40, dtype=np.uint8) * np.uint8(255)).save(tmp_path / name)
    output = tmp_path / "out"
    where = ["--output", str(output), "--model", str(model_file), "--truth", str(tmp_path)]
    assert main(["predict", str(tmp_path), *where]) == 0
    assert list(rows(output)) == ["a"]


def test_true_masks_that_cannot_be_compared_are_named_and_the_rest_is_done(model_file, photographs, tmp_path, capsys):
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b_segmentation.png").write_bytes(b"")
    output = tmp_path / "out"
    where = ["--output", str(output), "--model", str(model_file), "--truth", str(tmp_path)]
    assert main(["predict", str(photographs), *where]) == 1
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 2
    assert "a.png: is 10×10 pixels, expected 150×100" in said.err
    assert "b_segmentation.png: is empty" in said.err
    assert "photographs that could not be scored, without a usable true mask: 4" in said.out
    assert len(rows(output)) == 4


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no mask of a photograph"),
        (["a.png", "a_mask.png"], "2 masks for"),
        (None, "no such directory"),
    ],
)
def test_a_folder_of_true_masks_that_cannot_be_right_is_refused(model_file, photographs, tmp_path, capsys, files, said):
    folder = tmp_path / "truth"
    if files is not None:
        folder.mkdir()
    for name in files or ():
        (folder / name).write_bytes(b"")
    where = ["--output", str(tmp_path / "out"), "--model", str(model_file), "--truth", str(folder)]
    assert main(["predict", str(photographs), *where]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_set_of_outputs_into_the_same_folder(model_file, photographs, tmp_path):
    """What is left beside a mask belongs to it; what is not of an earlier run, and other photographs' results, stay."""
    output = tmp_path / "out"

    def files_after(name, *asked):
        assert (
            main(["predict", str(photographs / name), "--output", str(output), "--model", str(model_file), *asked]) == 0
        )
        return {path.name for path in output.iterdir()}

    record = {"a_segmentation.png", "lesions.csv", "run.json"}
    assert files_after("a.jpg", "--outlines") == record | {"a_outlines.geojson", "coco.json"}
    (output / "a_overlay.jpg").write_bytes(b"somebody's")
    assert files_after("a.jpg") == record | {"a_overlay.jpg"}
    assert files_after("a.jpg", "--outlines") == record | {"a_overlay.jpg", "a_outlines.geojson", "coco.json"}
    kept = record | {"a_overlay.jpg", "a_outlines.geojson", "b_segmentation.png"}
    assert files_after("b.png") == kept
    assert set(json.loads((output / "run.json").read_text())["written"]) == kept - {"a_overlay.jpg"}


def test_a_link_to_nothing_is_named(model_file, photographs, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "moved.jpg")
    assert main(["predict", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(model_file)]) == 1
    assert "gone.jpg: not found" in capsys.readouterr().err


def test_ctrl_c_leaves_whole_files_and_the_table_of_what_is_done(model_file, photographs, tmp_path, monkeypatch):
    written, original = [], command.write_png

    def interrupted(path, pixels):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        original(path, pixels)

    monkeypatch.setattr(command, "write_png", interrupted)
    output = tmp_path / "out"
    arguments = ["--output", str(output), "--model", str(model_file), "--outlines", "--workers", "1"]
    assert main(["predict", str(photographs), *arguments]) == 130
    assert not [path for path in output.rglob("*") if path.name.endswith(".tmp")]
    done = rows(output)
    assert 0 < len(done) <= 2
    assert all((output / f"{name}_outlines.geojson").is_file() for name in done)
    assert len(json.loads((output / "coco.json").read_text())["images"]) == len(done)
    assert list(json.loads((output / "run.json").read_text())["files"].values()) == ["done"] * len(done)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "CMYK", "LA", "P"])
def test_every_mode_is_predicted_and_overlaid_as_the_pipeline_reads_it(model_file, tmp_path, mode):
    random = np.random.default_rng(2)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (20, 30)).astype(np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (20, 30, 3)).astype(np.uint8)).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("I;16", "CMYK") else "a.png")
    image.save(path)
    assert main(["predict", str(path), "--output", str(tmp_path / "o"), "--model", str(model_file), "--overlay"]) == 0
    assert size_of(tmp_path / "o/a_overlay.jpg") == (30, 20)


def test_what_is_turned_by_its_camera_comes_out_upright(model_file, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert main(["predict", str(tmp_path / "a.jpg"), "--output", str(tmp_path / "o"), "--model", str(model_file),
                 "--overlay"]) == 0  # fmt: skip
    assert size_of(tmp_path / "o/a_overlay.jpg") == size_of(tmp_path / "o/a_segmentation.png") == (20, 30)


@pytest.mark.parametrize("name", ["a.tif", "a.gif"])
def test_several_pages_are_named_and_not_predicted(model_file, tmp_path, capsys, name):
    pages = [Image.new("L", (20, 20), shade) for shade in (0, 200)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    assert main(["predict", str(tmp_path / name), "--output", str(tmp_path / "o"), "--model", str(model_file)]) == 1
    assert "has several pages" in capsys.readouterr().err


@pytest.mark.parametrize(
    "written",
    ['["/etc/passwd", "../x", "a/../../x", "ours.png"]', "[1]", '{"a": 1}', "3", "[" * 9000, '["a\\u0000"]'],
)
def test_the_record_of_a_stranger_names_nothing_outside_the_folder(tmp_path, written):
    """What it lists may be replaced, and is listed again."""
    (tmp_path / "run.json").write_text(f'{{"written": {written}}}', encoding="utf-8")
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in written_before(tmp_path))
    assert ((tmp_path / "ours.png") in written_before(tmp_path)) == ("ours.png" in written)
