"""What comes when: order, shares and batches."""

import pickle
from itertools import product

import numpy as np
import pytest
import torch

from lesionseg.train.loading import Samples, batches, default_workers, order, steps
from tiny_training import SIDE, arrays, augmenter

CPU = torch.device("cpu")


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    rows = list(range(100, 150))
    assert sorted(order(0, 1, rows)) == rows
    assert np.array_equal(order(0, 1, rows), order(0, 1, rows))
    others = [order(seed, epoch, rows).tolist() for seed, epoch in [(0, 1), (0, 2), (1, 1), (1, 2), (1, 0)]]
    assert len({tuple(other) for other in others}) == len(others)


@pytest.mark.parametrize("count", [1, 2, 7, 16, 17])
def test_every_position_comes_once_whatever_the_shares(count):
    for batch_size, parts, processes in product([1, 3, 8], [1, 2, 5], [1, 2, 3]):
        plans = [steps(count, batch_size, parts, rank, processes) for rank in range(processes)]
        assert len({tuple(map(len, plan)) for plan in plans}) == 1  # they meet in every part
        for step, shares in enumerate(zip(*plans, strict=True)):
            taken = sorted(position for share in shares for part in share for position in range(part.start, part.stop))
            assert taken == list(range(step * batch_size, min((step + 1) * batch_size, count)))
            assert all(0 < len(share) <= parts for share in shares)
        assert all(len(part) for plan in plans[:1] for share in plan for part in share)  # the first is never idle


def test_a_share_of_one_process_is_never_empty():
    assert all(len(part) for share in steps(17, 8, parts=8) for part in share)


def test_shares_are_even():
    plans = [steps(8, 8, parts=2, rank=rank, processes=2) for rank in (0, 1)]
    assert [[len(part) for part in share] for plan in plans for share in plan] == [[2, 2], [2, 2]]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_rows_in_order(workers):
    images, masks = arrays(9)
    keys = [[(None, 4), (None, 0)], [(None, 8)], []]
    loaded = list(batches(Samples(images, masks), iter(keys), CPU, workers))
    assert [tuple(batch.shape) for batch, _ in loaded] == [(n, SIDE, SIDE, 3) for n in (2, 1, 0)]
    assert torch.equal(loaded[0][0], torch.from_numpy(images[[4, 0]]))
    assert torch.equal(loaded[1][1], torch.from_numpy(masks[[8]]))
    assert {tensor.dtype for batch in loaded for tensor in batch} == {torch.uint8}


def test_augmentation_is_that_of_the_key_and_none_without_an_epoch():
    images, masks = arrays(2)
    augment = augmenter(3, SIDE)
    [(batch, mask)] = batches(Samples(images, masks, augment), [[(5, 1), (None, 1), (6, 1), (5, 1)]], CPU)
    expected = augment(images[1], masks[1], 5, 1)
    assert np.array_equal(batch[0], expected[0])
    assert np.array_equal(mask[0], expected[1])
    assert np.array_equal(batch[1], images[1])
    assert torch.equal(batch[3], batch[0])


def test_epochs_differ():
    """albumentations left to itself repeats its draws from epoch to epoch and from worker to worker."""
    images, masks = arrays(1)
    [(batch, _)] = batches(
        Samples(images, masks, augmenter(0, SIDE)), [[(epoch, 0) for epoch in range(40)]], CPU, workers=1
    )
    assert len({image.numpy().tobytes() for image in batch}) == 8  # all symmetries of the square


def test_workers_read_ahead_only_a_little():
    """The keys of a whole run are a generator: it is not unrolled."""
    images, masks = arrays(4)
    drawn = 0

    def keys():
        nonlocal drawn
        while True:
            drawn += 1
            yield [(None, drawn % 4)]

    stream = batches(Samples(images, masks), keys(), CPU, workers=1)
    for _ in range(5):
        next(stream)
    assert drawn < 20


def test_memory_maps_travel_to_workers_as_paths(tmp_path):
    images, masks = arrays(3)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    pickled = pickle.dumps(Samples(mapped, masks))
    assert len(pickled) < masks.nbytes + 2000 < images.nbytes
    again = pickle.loads(pickled)
    assert isinstance(again.images, np.memmap)
    assert torch.equal(again.__getitems__([(None, 2)])[0][0], torch.from_numpy(images[2]))


def test_default_workers():
    assert default_workers(CPU, 64) == 0
    assert default_workers(torch.device("cuda"), 1) == 1
    assert default_workers(torch.device("cuda"), 4) == 3
    assert default_workers(torch.device("cuda"), 64) == 8


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_on_a_gpu_are_those_on_the_cpu(workers):
    images, masks = arrays(8)
    keys = [[(None, row), (None, (row + 1) % 8)] for row in range(8)] * 20
    samples = Samples(images, masks)
    for here, there in zip(
        batches(samples, keys, CPU), batches(samples, keys, torch.device("cuda"), workers), strict=True
    ):
        assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))
