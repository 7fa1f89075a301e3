"""Predictions do not depend on what they are computed beside, and test-time augmentation averages true views."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from conftest import torch_threads
from lesionseg.common.errors import InputError
from lesionseg.inference.prediction import MOST_IMAGES, batch_size, predict, stream
from lesionseg.inference.refine import REFINERS
from lesionseg.inference.settings import REFINEMENTS, VIEWS
from lesionseg.networks import build_network
from tiny_data import settle


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return settle(build_network("unet", 4), torch.rand(2, 3, 32, 32))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (MOST_IMAGES["cpu"] + 3, 32, 32, 3), np.uint8)


class Position(nn.Module):
    """Not equivariant on purpose: the logit is the red value plus a ramp along x."""

    def forward(self, images):
        ramp = torch.linspace(-2, 2, images.shape[-1]).expand(images.shape[0], 1, *images.shape[2:])
        return images[:, :1] + ramp


def test_a_prediction_is_the_networks_probability_in_8_bits(network, images):
    with torch.inference_mode():
        logits = network(torch.from_numpy(images[:2]).permute(0, 3, 1, 2).float() / 255)
    expected = torch.sigmoid(logits)[:, 0].numpy() * 255
    found = np.stack([prediction.plain for prediction in predict(network, images, [0, 1])])
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.501


def test_a_prediction_is_the_same_alone_and_among_others(network, images):
    together = [prediction.averaged for prediction in predict(network, images, range(len(images)))]
    assert len(together) == len(images)
    for row in (0, 5, len(images) - 1):
        (alone,) = predict(network, images, [row])
        np.testing.assert_array_equal(alone.averaged, together[row])


@pytest.mark.parametrize("augmentation", ["flips", "flips_rotations"])
def test_test_time_augmentation_averages_every_view_once(images, augmentation):
    (found,) = predict(Position(), images, [3], augmentation=augmentation)
    turns = range(2) if augmentation == "flips_rotations" else range(1)
    image = torch.from_numpy(images[3]).permute(2, 0, 1)[None].float() / 255
    total, views = 0, 0
    for k in turns:
        for flips in ([], [-1], [-2], [-1, -2]):
            seen = torch.sigmoid(Position()(torch.rot90(torch.flip(image, flips), k, (-2, -1))))
            total, views = total + torch.flip(torch.rot90(seen, -k, (-2, -1)), flips), views + 1
    assert views == VIEWS[augmentation]
    assert np.abs(found.averaged - (total / views)[0, 0].numpy() * 255).max() <= 0.501
    assert not np.array_equal(found.averaged, found.plain)


def test_averaging_makes_a_prediction_equivariant(network, images):
    """The mean over all eight views of a turned image is the turned mean: the views are the whole group."""
    turned = np.stack([np.rot90(images[0]), images[0][:, ::-1], images[0].transpose(1, 0, 2)])
    (straight,) = predict(network, images, [0], augmentation="flips_rotations")
    a, b, c = (one.averaged for one in predict(network, turned, range(3), augmentation="flips_rotations"))
    for found, expected in (
        (a, np.rot90(straight.averaged)),
        (b, straight.averaged[:, ::-1]),
        (c, straight.averaged.T),
    ):
        assert np.abs(found.astype(int) - expected).max() <= 1, "but for the order of summation"


def test_without_augmentation_both_are_the_same(network, images):
    (found,) = predict(network, images, [1])
    np.testing.assert_array_equal(found.averaged, found.plain)


def test_an_unknown_augmentation_is_refused(network, images):
    with pytest.raises(ValueError, match="expected one of none, flips"):
        list(predict(network, images, [0], augmentation="crops"))


@pytest.mark.parametrize("format", ["ieee", "tf32"])
def test_the_callers_torch_settings_are_left_alone(network, images, format):
    cudnn = torch.backends.cudnn

    def settings() -> tuple:
        return cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic, torch.is_inference_mode_enabled()

    original = cudnn.conv.fp32_precision
    try:
        cudnn.conv.fp32_precision = format
        before = settings()
        for _ in predict(network, images, [0, 1]):
            assert settings() == before, "between two images too"
        assert settings() == before
    finally:
        cudnn.conv.fp32_precision = original


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_gpu_and_cpu_agree_to_a_level(network, images):
    on_gpu = np.stack([one.averaged for one in predict(network, images, range(4), "cuda")])
    on_cpu = np.stack([one.averaged for one in predict(network.cpu(), images, range(4), "cpu")])
    assert np.abs(on_gpu.astype(int) - on_cpu).max() <= 1


def test_every_refinement_that_can_be_named_is_there():
    assert tuple(REFINERS) == REFINEMENTS


def test_the_batch_follows_the_pixels():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [batch_size(gpu, (size, size)) for size in (64, 256, 512, 1024, 4096)] == [64, 64, 16, 4, 1]
    assert [batch_size(cpu, (size, size)) for size in (64, 128, 256, 1024)] == [8, 4, 1, 1]


class Small(nn.Module):
    """A device that holds `room` images of an otherwise empty network."""

    def __init__(self, room: int, error: BaseException):
        super().__init__()
        self.room, self.error, self.seen = room, error, []

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > self.room:
            raise self.error
        return images[:, :1]


CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:128] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), CPU_ERROR, MemoryError()], ids=repr)
def test_out_of_memory_halves_the_batch_and_predicts_the_same(images, error, one_thread):
    roomy, tight = Small(8, error), Small(3, error)
    expected, found = (np.stack([one.plain for one in predict(model, images, range(11))]) for model in (roomy, tight))
    np.testing.assert_array_equal(found, expected)
    assert tight.seen == [8, 4, 2, 2, 2, 2, 2, 2], "and it stays halved"


def test_no_room_for_one_image_is_one_line(images):
    with pytest.raises(InputError, match="one image of 32×32 pixels does not fit into the machine's memory") as caught:
        list(predict(Small(0, CPU_ERROR), images, [0, 1]))
    assert len(caught.value.problems) == 1


def test_another_error_is_no_want_of_memory(images):
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(predict(Small(0, RuntimeError("shapes differ")), images, [0]))


def test_a_stream_is_read_no_further_than_its_batch(images, one_thread):
    taken = []
    predictions = stream(Small(8, CPU_ERROR), (taken.append(1) or image for image in images))
    next(predictions)
    assert len(taken) == 8
    assert list(stream(Small(8, CPU_ERROR), [])) == []


class Beside(nn.Module):
    """Notes the threads it runs in, and torch's threads in each."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, images):
        time.sleep(0.01)  # so that the next batch goes to another thread
        self.seen.add((threading.get_ident(), torch.get_num_threads()))
        return images[:, :1]


@pytest.fixture
def three_threads():
    with torch_threads(3):
        yield


def test_a_cpu_predicts_a_batch_a_core(images, three_threads):
    """And no more than twice as many are read ahead, and the caller's settings are back afterwards."""
    taken, model = [], Beside()
    predictions = stream(model, (taken.append(1) or images[number % 11] for number in range(96)))
    found = [next(predictions)]
    assert len(taken) <= 2 * 3 * 8
    found += predictions
    assert len({thread for thread, _ in model.seen} - {threading.get_ident()}) == 3
    assert {count for _, count in model.seen} == {1}
    assert torch.get_num_threads() == 3
    for number, one in enumerate(found):
        np.testing.assert_array_equal(
            one.plain, np.stack([p.plain for p in stream(Beside(), [images[number % 11]])])[0]
        )


def test_a_batch_alone_has_the_threads_of_one_among_many(images, three_threads):
    """Otherwise a photograph could get another mask when it is predicted by itself: threads show in the last bits."""
    model = Beside()
    list(stream(model, images[:1]))
    assert {count for _, count in model.seen} == {1}
    assert torch.get_num_threads() == 3


def test_a_prediction_does_not_depend_on_the_number_of_threads(network, three_threads):
    pictures = np.random.default_rng(1).integers(0, 256, (9, 64, 64, 3), np.uint8)
    beside = [one.plain for one in stream(network, pictures)]
    torch.set_num_threads(1)
    np.testing.assert_array_equal(beside, [one.plain for one in stream(network, pictures)])


def test_an_error_beside_others_ends_the_stream_and_gives_the_threads_back(images, three_threads):
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(stream(Small(0, RuntimeError("shapes differ")), [*images, *images]))
    assert torch.get_num_threads() == 3
