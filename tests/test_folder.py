"""The folder source: pairs matched by id, everything wrong with the pairing said at once, files copied as they are."""

import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lesionseg.common.errors import InputError
from lesionseg.download import layout
from lesionseg.download.folder import Reading, fetch
from lesionseg.formats import groups

REAL = Path(os.environ.get("LESIONSEG_REAL_DATA", Path(__file__).parents[2] / "shared/data"))


def photograph(path: Path, size: tuple[int, int] = (40, 30), **options) -> Path:
    """Write something with the colours of skin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (210, 160, 140))
    ImageDraw.Draw(image).ellipse((10, 8, 25, 20), (110, 70, 50))
    image.save(path, **options)
    return path


def outline(path: Path, size: tuple[int, int] = (40, 30), white: int = 255) -> Path:
    """Write the mask of `photograph`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    ImageDraw.Draw(image).ellipse((10, 8, 25, 20), white)
    image.save(path)
    return path


def find(folder: Path, **options) -> dict[str, tuple[Path, ...]]:
    """(image, mask) by id, or more masks where several make up one."""
    return {name: (pair.image, *pair.masks) for name, pair in layout.find_layout(folder, **options).pairs.items()}


def problems(folder: Path) -> list[str]:
    with pytest.raises(InputError) as error:
        fetch(folder, folder=folder, limit=None, seed=0, workers=1)  # into itself: nothing may be written
    return error.value.problems


def copied(folder: Path, target: Path, **changes) -> list:
    target.mkdir()
    how = {name: changes.pop(name) for name in ("labels", "mask_suffix", "keep_splits") if name in changes}
    usual = {"folder": folder, "limit": None, "seed": 0, "workers": 2}
    return fetch(target, **(usual | changes), reading=Reading(**how))


# What is a pair


@pytest.mark.parametrize("mask_name", ["{}_segmentation.png", "{}_mask.png", "{}.png", "{}_Segmentation.PNG"])
def test_images_and_masks_in_two_directories(tmp_path, mask_name):
    expected = {
        name: (
            photograph(tmp_path / "images" / f"{name}.jpg"),
            outline(tmp_path / "masks" / mask_name.format(name)),
        )
        for name in ("a", "b_2", "c")
    }
    assert find(tmp_path) == expected


@pytest.mark.parametrize("mask_name", ["{}_segmentation.png", "{}_mask.png", "{}_MASK.tiff"])
def test_all_files_in_one_directory(tmp_path, mask_name):
    expected = {
        name: (photograph(tmp_path / f"{name}.jpg"), outline(tmp_path / mask_name.format(name)))
        for name in ("a", "b_2")
    }
    assert find(tmp_path) == expected


@pytest.mark.parametrize("extension", ["jpg", "JPG", "jpeg", "png", "Png", "bmp", "tif", "TIFF"])
def test_every_documented_format_in_any_case(tmp_path, extension):
    image = photograph(tmp_path / f"a.{extension}")
    mask = outline(tmp_path / f"a_segmentation.{'png' if 'p' in extension.lower()[:2] else extension}")
    assert find(tmp_path) == {"a": (image, mask)}


def test_an_id_may_itself_end_like_a_mask(tmp_path):
    """In masks/, a name that is an image's means that image."""
    image, mask = photograph(tmp_path / "images/face_mask.jpg"), outline(tmp_path / "masks/face_mask.png")
    photograph(tmp_path / "images/b.jpg"), outline(tmp_path / "masks/b.png")
    assert find(tmp_path)["face_mask"] == (image, mask)


def test_other_files_are_passed_over(tmp_path):
    expected = {"a": (photograph(tmp_path / "a.jpg"), outline(tmp_path / "a_segmentation.png"))}
    for name in (
        "README.md",
        ".DS_Store",
        "._a.jpg",
        ".hidden.png",
        "a_superpixels.png",
        "B_SUPERPIXELS_1.png",
        "x.csv",
    ):
        (tmp_path / name).write_bytes(b"not a sample")
    photograph(tmp_path / "older" / "b.jpg")
    assert find(tmp_path) == expected


def test_listing_order_does_not_matter(tmp_path, monkeypatch):
    for name in "edbca":
        photograph(tmp_path / "in/images" / f"{name}.png")
        outline(tmp_path / "in/masks" / f"{name}.png")
    first = copied(tmp_path / "in", tmp_path / "first", limit=3)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    assert copied(tmp_path / "in", tmp_path / "second", limit=3) == first


# What is wrong with the pairing


def test_all_problems_at_once(tmp_path):
    for name in ("fine", "alone", "twice.a", "twomasks"):
        photograph(tmp_path / "images" / f"{name}.jpg")
    photograph(tmp_path / "images/twice.a.png")
    for name in ("fine_segmentation", "orphan_segmentation", "twice.a", "twomasks_mask", "twomasks_segmentation"):
        outline(tmp_path / "masks" / f"{name}.png")
    found = problems(tmp_path)
    assert len(found) == 4
    for parts in (
        ("images/alone.jpg: no mask", "alone_segmentation.png"),
        ("masks/orphan_segmentation.png: no image", "orphan.jpg"),
        ("images/twice.a.jpg", "images/twice.a.png: 2 images for the id twice.a"),
        ("masks/twomasks_mask.png", "masks/twomasks_segmentation.png: 2 masks for the id twomasks"),
    ):
        assert any(all(part in problem for part in parts) for problem in found), parts


def test_a_missing_folder(tmp_path):
    assert "no such directory" in problems(tmp_path / "nowhere")[0]
    (tmp_path / "file").touch()
    assert "found a file, expected a directory" in problems(tmp_path / "file")[0]


@pytest.mark.parametrize("present", ["images", "masks"])
def test_one_directory_of_the_two(tmp_path, present):
    photograph(tmp_path / present / "a.png")
    absent = "masks" if present == "images" else "images"
    assert f"found {present}/ without {absent}/" in problems(tmp_path)[0]


def test_masks_of_an_unknown_ending_in_the_one_directory(tmp_path):
    for name in "ab":
        photograph(tmp_path / f"images/{name}.jpg")
        outline(tmp_path / f"images/{name}_expert.png")
    (problem,) = problems(tmp_path)
    assert "_expert (2)" in problem
    assert "set another suffix with download.mask_suffix" in problem


def test_an_empty_data_set(tmp_path):
    (tmp_path / "README.md").touch()
    assert "no image and no mask" in problems(tmp_path)[0]
    photograph(tmp_path / "ISIC2018_Task1-2_Training_Input" / "a.jpg")
    (found,) = problems(tmp_path)
    assert "found 1 images and no masks: in the directories ISIC2018_Task1-2_Training_Input" in found
    assert "download.mask_suffix" in found


def test_directories_exchanged_by_their_names(tmp_path):
    for name in ("a", "b"):
        outline(tmp_path / "images" / f"{name}_segmentation.png")
        photograph(tmp_path / "masks" / f"{name}.jpg")
    (found,) = problems(tmp_path)
    assert "all 2 files are named like masks" in found
    assert "exchange" in found


@pytest.mark.parametrize("white", [255, 1])
@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_directories_exchanged_with_equal_names(tmp_path, white, extension):
    """Names do not tell here; pixels do. (JPEG, as masks come at times, makes them noisy.)"""
    for name in ("a", "b"):
        outline(tmp_path / "images" / f"{name}.{extension}", white=white if extension == "png" else 255)
        photograph(tmp_path / "masks" / f"{name}.{extension}")
    (found,) = problems(tmp_path)
    assert "images and masks are swapped" in found


def test_masks_in_both_places(tmp_path):
    outline(tmp_path / "images/a.png"), outline(tmp_path / "masks/a.png")
    assert "the images are black and white" in problems(tmp_path)[0]


def test_a_stray_mask_among_the_images(tmp_path):
    photograph(tmp_path / "images/a.jpg"), outline(tmp_path / "masks/a_segmentation.png")
    outline(tmp_path / "images/a_segmentation.png")
    (found,) = problems(tmp_path)
    assert "images/a_segmentation.png: named like a mask" in found


@pytest.mark.parametrize("colour", ["black", "white", (200, 150, 140)])
def test_blank_images_are_not_taken_for_masks(tmp_path, colour):
    Image.new("RGB", (40, 30), colour).save(tmp_path / "a.png")
    outline(tmp_path / "a_mask.png")
    assert list(find(tmp_path)) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are a POSIX matter")
def test_a_name_that_is_no_text(tmp_path):
    photograph(tmp_path / "a.jpg"), outline(tmp_path / "a_mask.png")
    os.rename(tmp_path / "a.jpg", os.fsencode(tmp_path) + b"/a\xff.jpg")
    os.rename(tmp_path / "a_mask.png", os.fsencode(tmp_path) + b"/a\xff_mask.png")
    found = problems(tmp_path)
    assert len(found) == 2
    assert all("unprintable" in problem and problem.isascii() for problem in found)


# What is copied


def test_files_are_copied_byte_for_byte_and_described(tmp_path):
    image = photograph(tmp_path / "in/images/a.JPG", (50, 20), quality=80)
    mask = outline(tmp_path / "in/masks/a_mask.bmp", (50, 20))
    (pair,) = copied(tmp_path / "in", tmp_path / "raw")
    assert (pair.id, pair.image, pair.mask) == ("a", "images/a.jpg", "masks/a_segmentation.bmp")
    assert (pair.width, pair.height, pair.subset, pair.source) == (50, 20, "training", "folder")
    for original, name, digest in ((image, pair.image, pair.image_sha256), (mask, pair.mask, pair.mask_sha256)):
        copy = tmp_path / "raw" / name
        assert copy.read_bytes() == original.read_bytes()
        assert hashlib.sha256(original.read_bytes()).hexdigest() == digest
        assert not copy.samefile(original)  # DVC write-protects what it tracks: never the user's own file
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["images", "masks"]


@pytest.mark.parametrize("extension", ["jpg", "png", "tif"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (50, 20)), (3, (50, 20)), (6, (20, 50)), (8, (20, 50))])
def test_the_size_is_the_one_the_image_is_seen_at(tmp_path, extension, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(tmp_path / "in" / f"a.{extension}", (50, 20), exif=exif)
    outline(tmp_path / "in/a_mask.png", size)
    (pair,) = copied(tmp_path / "in", tmp_path / "raw")
    assert (pair.width, pair.height) == size


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0\0\0"])
def test_a_file_that_is_no_image_is_left_to_preprocessing(tmp_path, content):
    """Which decides, by its parameter, whether to fail or to drop the pair."""
    for name in "ab":
        photograph(tmp_path / f"in/{name}.png"), outline(tmp_path / f"in/{name}_mask.png")
    (tmp_path / "in/a.png").write_bytes(content)
    bad, good = copied(tmp_path / "in", tmp_path / "raw")
    assert (bad.width, bad.height) == (None, None)
    assert (good.width, good.height) == (40, 30)
    assert (tmp_path / "raw/images/a.png").read_bytes() == content


def test_notices_are_kept_beside_the_data(tmp_path):
    photograph(tmp_path / "in/a.jpg"), outline(tmp_path / "in/a_mask.png")
    for name in ("ATTRIBUTION.txt", "LICENSE", "README.md"):
        (tmp_path / "in" / name).write_text(name)
    copied(tmp_path / "in", tmp_path / "raw")
    assert sorted(path.name for path in (tmp_path / "raw").iterdir() if path.is_file()) == [
        "ATTRIBUTION.txt",
        "LICENSE",
    ]


def test_a_larger_limit_contains_the_smaller(tmp_path):
    for number in range(12):
        photograph(tmp_path / f"in/{number}.png"), outline(tmp_path / f"in/{number}_mask.png")
    few, more = (copied(tmp_path / "in", tmp_path / f"raw{limit}", limit=limit) for limit in (4, 8))
    assert (len(few), len(more)) == (4, 8)
    assert set(few) < set(more)
    assert len(list((tmp_path / "raw4/images").iterdir())) == 4
    assert set(copied(tmp_path / "in", tmp_path / "other", limit=4, seed=1)) != set(few)


def test_an_orphan_is_reported_even_outside_the_subset(tmp_path):
    photograph(tmp_path / "in/a.png"), outline(tmp_path / "in/a_mask.png"), photograph(tmp_path / "in/b.png")
    with pytest.raises(InputError, match=r"b\.png: no mask"):
        copied(tmp_path / "in", tmp_path / "raw", limit=1)
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.mark.skipif(not (REAL / "isic2018-crop512").is_dir(), reason="the real images are not here")
def test_real_pairs_are_all_found():
    found = find(REAL / "isic2018-crop512")
    assert len(found) == 1000
    assert all(image.stem == name and mask.stem == f"{name}_segmentation" for name, (image, mask) in found.items())


# A split that the folder came in


def test_a_split_given_as_folders_is_kept_unless_told_otherwise(tmp_path, capsys):
    for split, names in (("train", "abc"), ("valid", "de"), ("Test", "f")):
        for name in names:
            photograph(tmp_path / f"own/{split}/images/{name}.jpg")
            outline(tmp_path / f"own/{split}/masks/{name}.png")
    pairs = copied(tmp_path / "own", tmp_path / "kept")
    subsets = ["training", "training", "training", "given_val", "given_val", "given_test"]
    assert [pair.subset for pair in pairs] == subsets
    assert "its split is kept: 3 pairs to train on, 2 in val, 1 in test" in capsys.readouterr().out
    pairs = copied(tmp_path / "own", tmp_path / "divided", keep_splits=False)
    assert {pair.subset for pair in pairs} == {"training"}
    assert "kept" not in capsys.readouterr().out


def test_a_folder_of_a_test_set_alone_is_divided_like_any_other(tmp_path, capsys):
    for name in "abc":
        photograph(tmp_path / f"own/test/images/{name}.jpg")
        outline(tmp_path / f"own/test/masks/{name}.png")
    assert {pair.subset for pair in copied(tmp_path / "own", tmp_path / "raw")} == {"training"}
    assert "its split leaves nothing to train on" in capsys.readouterr().out


def test_tables_are_read_wherever_they_lie_and_speak_of_what_lies_below(tmp_path):
    for batch in ("one", "two"):
        for number in "12":
            photograph(tmp_path / f"in/{batch}/images/{number}.jpg", (40 + int(number), 30))
            outline(tmp_path / f"in/{batch}/masks/{number}.png", (40 + int(number), 30))
        (tmp_path / f"in/{batch}/tables").mkdir()
        (tmp_path / f"in/{batch}/tables/groups.csv").write_text(f"id,patient\n1,{batch}\n2,{batch}\n")
    assert len(copied(tmp_path / "in", tmp_path / "out")) == 4
    assert groups.links(groups.read(tmp_path / "out")) == [("one_1", "one_2"), ("two_1", "two_2")]


@pytest.mark.parametrize("target", ["/nowhere/groups.csv", "groups.csv"])
def test_a_table_that_is_not_here_is_no_absent_table(tmp_path, target):
    photograph(tmp_path / "a.jpg")
    outline(tmp_path / "a_mask.png")
    (tmp_path / "groups.csv").symlink_to(target)
    (problem,) = problems(tmp_path)
    assert "groups.csv: is a link to" in problem


def test_a_training_directory_beside_others_of_no_split_is_said(tmp_path, capsys):
    for split in ("train", "evaluation"):
        photograph(tmp_path / f"in/{split}/{split}.jpg")
        outline(tmp_path / f"in/{split}/{split}_mask.png")
    copied(tmp_path / "in", tmp_path / "out")
    assert "1 pairs are in directories of a training set, 1 in none of a split" in capsys.readouterr().out
