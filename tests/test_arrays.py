"""The processed arrays: what is written comes back, and what does not fit is refused."""

import numpy as np
import pytest

from lesionseg.common.errors import InputError
from lesionseg.formats.array_writer import ArrayWriter
from lesionseg.formats.processed import Sample, open_arrays, read_samples, write_samples


def sample(number: int, **changes) -> Sample:
    fields = {
        "id": f"L{number:04d}",
        "split": "train",
        "width": 640,
        "height": 480,
        "lesion_fraction": 0.125,
        "group": f"L{number:04d}",
    }
    return Sample(**(fields | changes))


def write(folder, images: np.ndarray, masks: np.ndarray, samples: list[Sample]) -> None:
    np.save(folder / "images.npy", images)
    np.save(folder / "masks.npy", masks)
    write_samples(folder, samples)


def test_samples_come_back_as_written(tmp_path):
    samples = [sample(1, lesion_fraction=1 / 3), sample(2, split="val", group="L0001", width=1)]
    write_samples(tmp_path, samples)
    assert read_samples(tmp_path) == [sample(1, lesion_fraction=0.333333), samples[1]]


def test_arrays_open_read_only_and_mapped(tmp_path):
    images = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    masks = (images[..., 0] > 100).astype(np.uint8)
    write(tmp_path, images, masks, [sample(1), sample(2)])
    opened = open_arrays(tmp_path)
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in opened)
    np.testing.assert_array_equal(opened[0], images)
    np.testing.assert_array_equal(opened[1], masks)


@pytest.mark.parametrize(
    ("images", "masks", "rows", "message"),
    [
        ((2, 16, 16, 3), (3, 16, 16), 2, "do not match"),
        ((2, 16, 16, 3), (2, 16, 32), 2, "do not match"),
        ((2, 16, 16), (2, 16, 16), 2, "expected uint8 \\(N, H, W, 3\\)"),
        ((2, 16, 16, 3), (2, 16, 16, 1), 2, "expected uint8 \\(N, H, W\\)"),
        ((2, 16, 16, 3), (2, 16, 16), 1, "samples.csv has 1 rows, the arrays 2"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path, images, masks, rows, message):
    write(
        tmp_path,
        np.zeros(images, np.uint8),
        np.zeros(masks, np.uint8),
        [sample(number) for number in range(rows)],
    )
    with pytest.raises(InputError, match=message):
        open_arrays(tmp_path)


def test_a_cut_off_array_is_refused(tmp_path):
    write(tmp_path, np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16), np.uint8), [sample(1), sample(2)])
    whole = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"images\.npy: not a whole \.npy file"):
        open_arrays(tmp_path)


def test_an_unknown_split_and_a_bad_number_are_both_named(tmp_path):
    (tmp_path / "samples.csv").write_text(
        "id,split,width,height,lesion_fraction,group\na,tarin,1,1,0.5,a\nb,train,x,1,0.5,b\n"
    )
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path)
    assert "line 2" in str(caught.value)
    assert "line 3" in str(caught.value)


def test_writer_makes_the_file_numpy_would(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (11, 4, 5, 3), dtype=np.uint8)
    with ArrayWriter(tmp_path / "a.npy", (4, 5, 3)) as writer:
        for row in rows:
            writer.append(row)
    np.save(tmp_path / "b.npy", rows)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3], [], [0, 3]])
def test_writer_keeps_the_rows_asked_for(tmp_path, rows):
    content = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    with ArrayWriter(tmp_path / "a.npy", (6,)) as writer:
        for row in content:
            writer.append(row)
        writer.select_rows(rows)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), content[rows])


def test_writer_refuses_what_does_not_fit(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", (4, 4)) as writer:
        with pytest.raises(ValueError, match="expected uint8"):
            writer.append(np.zeros((4, 4)))
        with pytest.raises(ValueError, match="expected uint8"):
            writer.append(np.zeros((4, 5), np.uint8))
