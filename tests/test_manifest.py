"""manifest.csv: what is written comes back, and what is no manifest is refused with its line."""

import pytest

from lesionseg.common.errors import InputError
from lesionseg.formats import manifest
from lesionseg.formats.manifest import Pair

HEADER = "id,image,mask,width,height,image_sha256,mask_sha256,subset,source\n"
ROW = "a,images/a.jpg,masks/a_segmentation.png,640,480,00,11,training,folder\n"


def pair(name: str, **changes) -> Pair:
    fields = {
        "id": name,
        "image": f"images/{name}.jpg",
        "mask": f"masks/{name}_segmentation.png",
        "width": 640,
        "height": 480,
        "image_sha256": "00",
        "mask_sha256": "11",
        "subset": "training",
        "source": "folder",
    }
    return Pair(**(fields | changes))


def test_pairs_come_back_sorted_as_written(tmp_path):
    pairs = [pair("b", width=None, height=None), pair("a, the first", subset="test", source="isic2018")]
    manifest.write(tmp_path, pairs)
    assert manifest.read(tmp_path) == [pairs[1], pairs[0]]


def test_the_file_is_the_documented_table(tmp_path):
    manifest.write(tmp_path, [pair("a")])
    assert (tmp_path / "manifest.csv").read_bytes() == (HEADER + ROW).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no pair"),
        (HEADER, "lists no pair"),
        ("id,image\na,b\n", "found the columns id,image, expected id,image,mask"),
        (HEADER + ROW + "b,images/b.jpg\n", "line 3: found 2 fields, expected 9"),
        (HEADER + ROW.replace("folder", "folder,more,and,more"), "line 2: found 12 fields, expected 9"),
        (HEADER + ROW + ROW, "line 3: the id a appears a second time"),
        (HEADER + ROW.replace("640", "wide"), "line 2: found width 'wide', expected a positive whole number"),
        (HEADER + ROW.replace("480", "0"), "line 2: found height '0'"),
        (HEADER + ROW.replace("images/a.jpg", ""), "line 2: image is empty"),
        (
            HEADER + ROW.replace("training", "train"),
            "line 2: found subset 'train', expected training, validation, test",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(InputError) as error:
        manifest.read(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path / "manifest.csv") in str(error.value)


def test_all_wrong_lines_are_named_at_once(tmp_path):
    (tmp_path / "manifest.csv").write_text(HEADER + ROW.replace("640", "x") + ROW.replace("480", "y"))
    with pytest.raises(InputError) as error:
        manifest.read(tmp_path)
    assert len(error.value.problems) == 2


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.csv: not found"):
        manifest.read(tmp_path)
