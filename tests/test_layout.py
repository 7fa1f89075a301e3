"""The folders that people have: what is an image, what is its mask, which split it came in."""

import os
from pathlib import Path

import pytest

from lesionseg.common.errors import InputError
from lesionseg.download.layout import find_layout, place

IDS = ("a", "b_2", "ISIC_0000003")


def files(root: Path, *names: str) -> None:
    """Files with these names; what is in them does not matter to the layout."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 2000)


LAYOUTS = {  # what it is -> (an image, its mask)
    "images and masks": ("images/{}.jpg", "masks/{}.png"),
    "capital directories": ("Images/{}.JPG", "Masks/{}.PNG"),
    "imgs": ("imgs/{}.jpg", "masks/{}.gif"),
    "webp": ("images/{}.webp", "masks/{}.png"),
    "labels": ("image/{}.png", "label/{}.png"),
    "ground truth": ("images/{}.jpg", "ground_truth/{}.png"),
    "names of Carvana": ("imgs/{}.jpg", "masks/{}_mask.gif"),
    "official archives": (
        "ISIC2018_Task1-2_Training_Input/{}.jpg",
        "ISIC2018_Task1_Training_GroundTruth/{}_segmentation.png",
    ),
    "archives of 2017": ("ISIC-2017_Training_Data/{}.jpg", "ISIC-2017_Training_Part1_GroundTruth/{}_segmentation.png"),
    "unpacked twice": ("Input/Input/{}.jpg", "GroundTruth/GroundTruth/{}_segmentation.png"),
    "PH2, flat": ("{}.bmp", "{}_lesion.bmp"),
    "PH2, masks aside": ("images/{}.bmp", "masks/{}_lesion.bmp"),
    "PH2": ("PH2 Dataset images/{0}/{0}_Dermoscopic_Image/{0}.bmp", "PH2 Dataset images/{0}/{0}_lesion/{0}_lesion.bmp"),
    "segmentation in capitals": ("{}.jpg", "{}_Segmentation.png"),
    "short names": ("{}.jpg", "{}-seg.png"),
    "image_ and mask_": ("image_{}.jpg", "mask_{}.png"),
    "image_ and mask_ in directories": ("images/image_{}.jpg", "masks/mask_{}.png"),
    "img- and mask-": ("img-{}.jpg", "mask-{}.png"),
    "img and mask with a number": ("IMG{}.jpg", "MASK{}.png"),
    "two words": ("{}.jpg", "{}_segmentation_mask.png"),
    "two words in one": ("images/{}.jpg", "masks/{}_BinaryMask.png"),
    "the image's extension": ("{}.jpg", "{}.jpg_mask.png"),
    "the image's extension, in directories": ("images/{}.jpg", "masks/{}.jpg.png"),
    "CVAT and LabelMe, as VOC": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    "LabelMe, as PNG": ("JPEGImages/{}.jpg", "SegmentationClassPNG/{}.png"),
    "Supervisely": ("lesions/img/{}.jpg", "lesions/masks_machine/{}.png"),
    "Roboflow": ("{}_jpg.rf.0a1b.jpg", "{}_jpg.rf.0a1b_mask.png"),
    "3D Slicer": ("{}.jpg", "{}-label.png"),
    "image behind": ("{}_image.jpg", "{}_mask.png"),
    "masks below images": ("{}.jpg", "masks/{}.png"),
    "deeper on both sides": ("images/batch2/{}.jpg", "masks/batch2/{}.png"),
    "deeper on one side": ("images/batch2/{}.jpg", "masks/{}.png"),
    "all deeper": ("2024/clinic/images/{}.jpg", "2024/clinic/masks/{}.png"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_as_it_comes(tmp_path, name):
    expected = {}
    for one in ("1", "2_2", "0000003") if "number" in name else IDS:
        image, mask = (tmp_path / pattern.format(one) for pattern in LAYOUTS[name])
        files(tmp_path, image, mask)
        expected[image.stem] = (image, (mask,))
    layout = find_layout(tmp_path)
    assert {key: (pair.image, pair.masks) for key, pair in layout.pairs.items()} == expected
    assert not layout.passed_over


SPLITS = {  # an image and its mask, in a split of which the word is given
    "above": ("{split}/images/{id}.jpg", "{split}/masks/{id}.png"),
    "below": ("images/{split}/{id}.jpg", "masks/{split}/{id}.png"),
    "in the name": ("{split}_images/{id}.jpg", "{split}_masks/{id}.png"),
    "behind the name": ("images_{split}/{id}.jpg", "masks_{split}/{id}.png"),
    "flat": ("{split}/{id}.jpg", "{split}/{id}_mask.png"),
    "set": ("{split}_set/images/{id}.jpg", "{split}_set/masks/{id}.png"),
    "data": ("{split} Data/{id}.jpg", "{split} Data/{id}_mask.png"),
    "archives": ("ISIC2018_Task1-2_{split}_Input/{id}.jpg", "ISIC2018_Task1_{split}_GroundTruth/{id}_segmentation.png"),
    "deep": ("data/isic/{split}/images/{id}.jpg", "data/isic/{split}/masks/{id}.png"),
    "images only": ("images/{split}/{id}.jpg", "masks/{id}.png"),
}


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "Validation", "Test"), ("train", "valid", "TEST")]
)
def test_the_directory_of_a_split_is_kept(tmp_path, name, words):
    expected = {}
    for split, word in zip(("train", "val", "test"), words, strict=True):
        for number in range(2):
            one = f"{split}{number}"
            files(tmp_path, *(pattern.format(split=word, id=one) for pattern in SPLITS[name]))
            expected[one] = split
    assert {key: pair.split for key, pair in find_layout(tmp_path).pairs.items()} == expected


def test_nnunet_directories(tmp_path):
    files(tmp_path, "imagesTr/a.png", "labelsTr/a.png", "imagesTs/b.png", "labelsTs/b.png")
    assert {key: pair.split for key, pair in find_layout(tmp_path).pairs.items()} == {"a": "train", "b": "test"}


@pytest.mark.parametrize(
    "names", [["trained_by_residents"], ["contest"], ["latest images"], ["value"], ["test strips of skin"]]
)
def test_words_that_only_contain_a_split_are_none(names):
    assert place(names).split is None


@pytest.mark.parametrize("name", ["above", "below", "flat"])
def test_ids_that_start_anew_in_every_split_are_kept_apart(tmp_path, name):
    for split in ("train", "val"):
        files(tmp_path, *(pattern.format(split=split, id="001") for pattern in SPLITS[name]))
    pairs = find_layout(tmp_path).pairs
    assert {key: pair.split for key, pair in pairs.items()} == {"train_001": "train", "val_001": "val"}
    for split in ("train", "val"):
        pair = pairs[f"{split}_001"]
        assert all(split in str(path) for path in (pair.image, *pair.masks))


def test_ids_that_start_anew_in_every_directory_are_kept_apart(tmp_path):
    for batch in ("batch1", "batch2"):
        files(tmp_path, f"images/{batch}/7.jpg", f"masks/{batch}/7.png")
    pairs = find_layout(tmp_path).pairs
    assert len(pairs) == 2
    assert all(pair.image.parent.name == pair.masks[0].parent.name for pair in pairs.values())


def test_an_image_in_one_split_and_its_mask_in_another(tmp_path):
    files(tmp_path, "images/train/a.jpg", "masks/val/a.png", "images/train/b.jpg", "masks/train/b.png")
    with pytest.raises(InputError, match=r"a\.jpg: in train, but .*a\.png in val"):
        find_layout(tmp_path)


@pytest.mark.parametrize("mask", ["{}_mask_{}.png", "{}_segmentation{}.png", "{}_Lesion-{}.png"])
def test_several_masks_of_one_image(tmp_path, mask):
    files(tmp_path, "a.jpg", mask.format("a", 0), mask.format("a", 1), "b.jpg", "b_mask.png")
    pairs = find_layout(tmp_path).pairs
    assert pairs["a"].masks == (tmp_path / mask.format("a", 0), tmp_path / mask.format("a", 1))
    assert pairs["b"].masks == (tmp_path / "b_mask.png",)


def test_names_that_look_alike_are_the_same(tmp_path):
    """A name from one computer has é as one character, from another as two."""
    files(
        tmp_path, "images/caf\u00e9.jpg", "masks/cafe\u0301.png", "images/nai\u0308ve.jpg", "masks/na\u00efve_mask.png"
    )
    assert list(find_layout(tmp_path).pairs) == ["caf\u00e9", "na\u00efve"]


def test_an_id_may_end_like_a_mask_in_one_directory(tmp_path):
    files(tmp_path, "p1_lesion.jpg", "p1_lesion_mask.png", "p2_lesion.jpg", "p2_lesion_mask.png")
    assert list(find_layout(tmp_path).pairs) == ["p1_lesion", "p2_lesion"]


def test_a_suffix_can_be_named(tmp_path):
    files(tmp_path, "a.jpg", "a_expert.png", "b.jpg", "b_Expert.PNG")
    with pytest.raises(InputError, match=r"4 images and no masks.*_expert \(1\).*_segmentation, _mask.*mask_suffix"):
        find_layout(tmp_path)
    assert {name: pair.masks[0].name for name, pair in find_layout(tmp_path, "_expert").pairs.items()} == {
        "a": "a_expert.png",
        "b": "b_Expert.PNG",
    }


def test_a_suffix_may_be_named_with_its_extension(tmp_path):
    files(tmp_path, "a.jpg", "a_roi.png")
    assert find_layout(tmp_path, "_roi.png").pairs["a"].masks == (tmp_path / "a_roi.png",)


def test_masks_shown_again_by_annotation_tools_are_passed_over(tmp_path):
    for again in ("SegmentationObject", "SegmentationClassVisualization", "masks_human"):
        files(tmp_path, "img/a.jpg", "masks_machine/a.png", f"{again}/a.png")
        layout = find_layout(tmp_path)
        assert layout.pairs["a"].masks == (tmp_path / "masks_machine/a.png",)
        assert layout.passed_over[f"in {again}/"] == 1


def test_two_files_of_each_name_in_one_directory(tmp_path):
    files(tmp_path, "a.jpg", "a.png", "b.jpg", "b.png")
    with pytest.raises(InputError, match=r"two files of each name, such as a\.jpg and a\.png.*directory named masks/"):
        find_layout(tmp_path)


def test_names_that_differ_in_case_alone_are_shown_side_by_side(tmp_path):
    files(tmp_path, "images/ISIC_1.jpg", "masks/isic_1.png", "images/b.jpg", "masks/b.png")
    with pytest.raises(InputError, match=r"isic_1\.png: no image .*ISIC_1 differs only in upper and lower"):
        find_layout(tmp_path)


def test_what_is_passed_over_is_counted(tmp_path):
    files(
        tmp_path,
        *("images/a.jpg", "masks/a.png", "images/a_superpixels.png", "notes.txt", "more.txt", ".hidden.jpg", "x.heic"),
        *("PH2/IMD1_roi/IMD1_R1_Label.bmp", "extra/overview.jpg", "extra/poster.jpg"),
    )
    layout = find_layout(tmp_path)
    assert list(layout.pairs) == ["a"]
    assert dict(layout.passed_over) == {
        ".txt": 2,
        ".heic": 1,
        "hidden": 1,
        "superpixels": 1,
        "in …_roi/": 1,
        "images without any mask in extra/": 2,
    }


def test_an_image_without_mask_beside_pairs_is_an_error(tmp_path):
    files(tmp_path, "a.jpg", "a_mask.png", "batch2/b.jpg", "batch2/b_mask.png", "batch2/c.jpg", "masks/d.png")
    with pytest.raises(InputError) as error:
        find_layout(tmp_path)
    assert len(error.value.problems) == 2
    assert any("batch2/c.jpg: no mask" in problem for problem in error.value.problems)
    assert any("masks/d.png: no image" in problem for problem in error.value.problems)


@pytest.mark.parametrize("name", ["groups.xlsx", "Groups.tsv", "images/groups.ods"])
def test_groups_of_another_format_are_not_passed_over(tmp_path, name):
    files(tmp_path, "images/a.jpg", "masks/a.png", name)
    with pytest.raises(InputError, match=r"groups are read from CSV"):
        find_layout(tmp_path)


def test_links_to_themselves_and_pipes_are_refused(tmp_path):
    files(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "images/loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "images/pipe.jpg")
    with pytest.raises(InputError) as error:
        find_layout(tmp_path)
    assert "is a link to loop.jpg, which does not exist" in error.value.problems[0]
    assert "is a pipe or a device" in error.value.problems[1]


@pytest.mark.parametrize("where", ["images", "masks", "images/batch2", "train"])
def test_a_link_to_a_directory_is_refused(tmp_path, where):
    """DVC does not look behind it: changed data would pass for up to date."""
    files(tmp_path / "data", "images/a.jpg", "masks/a.png")
    files(tmp_path / "elsewhere", "b.jpg", "b_mask.png")
    target = tmp_path / "elsewhere"
    link = tmp_path / "data" / where
    if link.exists():
        link.rename(tmp_path / "moved")
        target = tmp_path / "moved"
    link.symlink_to(target, target_is_directory=True)
    with pytest.raises(InputError) as error:
        find_layout(tmp_path / "data")
    assert any(
        str(link) in problem and "link to a directory" in problem and str(target) in problem
        for problem in error.value.problems
    )


def test_links_to_files_and_a_link_as_the_folder_are_fine(tmp_path):
    files(tmp_path / "store", "1.jpg", "1_mask.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jpg").symlink_to(tmp_path / "store/1.jpg")
    (tmp_path / "data/a_mask.png").symlink_to("../store/1_mask.png")
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    assert list(find_layout(tmp_path / "link").pairs) == ["a"]


UNFETCHED = {
    "git-LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    "git-annex pointer": (b"/annex/objects/SHA256E-s9--00.jpg\n", "git annex get"),
    "git-annex": ("../.git/annex/objects/aa/bb/SHA256E-s9--00.jpg/SHA256E-s9--00.jpg", "git annex get"),
    "a broken link": ("../nowhere.jpg", "does not exist"),
}


@pytest.mark.parametrize("name", UNFETCHED)
def test_what_is_kept_elsewhere_is_named_with_the_command_that_fetches_it(tmp_path, name):
    files(tmp_path, "images/a.jpg", "masks/a.png", "masks/b.png")
    content, said = UNFETCHED[name]
    if isinstance(content, bytes):
        (tmp_path / "images/b.jpg").write_bytes(content)
    else:
        (tmp_path / "images/b.jpg").symlink_to(content)
    with pytest.raises(InputError) as error:
        find_layout(tmp_path)
    assert any("images/b.jpg" in problem and said in problem for problem in error.value.problems)


def test_data_that_dvc_has_not_fetched(tmp_path):
    files(tmp_path, "images/a.jpg", "masks.dvc")
    with pytest.raises(InputError, match=r"masks\.dvc: .* dvc pull"):
        find_layout(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind here")
def test_files_and_directories_without_permission(tmp_path):
    files(tmp_path, "a.jpg", "a_mask.png", "b/b.jpg")
    (tmp_path / "a.jpg").chmod(0)
    (tmp_path / "b").chmod(0)
    with pytest.raises(InputError) as error:
        find_layout(tmp_path)
    (tmp_path / "b").chmod(0o700)
    assert any("a.jpg: no permission" in problem for problem in error.value.problems)
    assert any("b: no permission to list" in problem for problem in error.value.problems)


def test_a_name_too_long_for_a_copy(tmp_path):
    files(tmp_path, f"{'é' * 120}.jpg", f"{'é' * 120}_m.png", "a.jpg", "a_mask.png")
    with pytest.raises(InputError, match=r"its name is 240 bytes long, expected at most 200; rename"):
        find_layout(tmp_path)
