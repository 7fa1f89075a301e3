"""What holds on an NVIDIA GPU and cannot be seen without one: the same bits, the same numbers, and clear refusals.

The published network at the published size is among it: other kernels run there than on small images.
"""

import gc
import json
import multiprocessing
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lesionseg.common.errors import InputError
from lesionseg.common.hardware import choose_device, use_deterministic_algorithms
from lesionseg.inference.prediction import predict
from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts, count
from lesionseg.train import distributed, precision
from lesionseg.train.loading import Data, Samples
from lesionseg.train.loop import unit_interval
from tiny_training import EVERYTHING, PLAIN, arrays, augmenter, bce_dice, data, digest, network, process, run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

FORMATS = ("bf16", "fp16", "tf32", "fp32")
# ‖half - single‖ / ‖half‖ of one step of a fresh network: logits, losses of the images, gradient. fp16 and tf32 have 11
# bits, bf16 has 8; rounding adds up over the layers, twice in the gradient.
TOLERANCES = {"bf16": (0.06, 0.005, 0.15), "fp16": (0.012, 0.001, 0.06), "tf32": (0.012, 0.001, 0.06)}


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    rounding = torch.backends.fp32_precision
    use_deterministic_algorithms(True)
    yield choose_device("cuda")
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.fp32_precision = rounding
    torch.cuda.empty_cache()


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a format; skips the test where the card lacks it."""
    least = {"bf16": precision.AMPERE, "tf32": precision.AMPERE, "fp16": precision.VOLTA}
    if torch.cuda.get_device_capability(device) < least.get(name, (0, 0)):
        pytest.skip(f"the card has no {name}")
    return precision.choose_dtype(name, device)


def large_data(train: int = 24, val: int = 8, side: int = 256) -> Data:
    images, masks = arrays(train + val, side)
    ids = [f"L_{row:02d}" for row in range(train + val)]
    rows = list(range(train + val))
    return Data(Samples(images, masks, augmenter(0, side)), rows[:train], rows[train:], ids)


# ---- the same bits ----


@pytest.mark.parametrize("name", FORMATS)
def test_published_network_trains_twice_to_the_same_bits(gpu, name):
    dtype, recipe = dtype_of(name, gpu), PLAIN | {"epochs": 2, "batch_size": 8}
    first, second = (
        run(network(64), dataset=large_data(), recipe=recipe, dtype=dtype, device=gpu, workers=workers)
        for workers in (0, 2)
    )
    assert digest(first) == digest(second)


def deterministic_process(*arguments) -> None:
    use_deterministic_algorithms(True)
    process(*arguments)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_resumed_after_sigkill_gives_the_same_bits(gpu, name, tmp_path):
    dtype = dtype_of(name, gpu)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    outcomes = []
    for run_name, deaths in (("whole", []), ("killed", [("step", 3), ("write", 2), ("epoch", 2)])):
        folder = tmp_path / run_name
        folder.mkdir()
        for death in [*deaths, ("never",)]:
            child = spawn.Process(target=deterministic_process, args=(folder, EVERYTHING, dtype, 1e-9, death, "cuda"))
            child.start()
            child.join()
            assert child.exitcode == (0 if death == ("never",) else -9)
        outcomes.append(json.loads((folder / "outcome.json").read_text()))
    whole, killed = outcomes
    assert killed["digest"] == whole["digest"]
    assert killed["loss_calls"] < whole["loss_calls"], "it went on, it did not start anew"


# ---- the same numbers ----


def one_step(name: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, losses and the whole gradient of the published network's first step, float32 on the CPU."""
    dtype = precision.choose_dtype(name, device)
    images, masks = arrays(8, 256)
    model = network(64).to(device, memory_format=torch.channels_last)
    scale = 2.0**12 if dtype == torch.float16 else 1.0
    with precision.autocast(device, dtype):
        logits = model(unit_interval(torch.from_numpy(images).to(device)))
    image_losses = bce_dice(logits, torch.from_numpy(masks).to(device).unsqueeze(1))
    (image_losses.mean() * scale).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]) / scale
    return tuple(tensor.detach().float().cpu() for tensor in (logits, image_losses, gradient))


@pytest.mark.parametrize("name", TOLERANCES)
def test_coarser_formats_agree_with_single_precision(gpu, name):
    dtype_of(name, gpu)
    coarse, single = one_step(name, gpu), one_step("fp32", gpu)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(coarse, single, strict=True)]
    assert all(error < tolerance for error, tolerance in zip(errors, TOLERANCES[name], strict=True)), errors
    assert errors[0] > 1e-5, "it is computed in the coarser format"


def test_single_precision_agrees_with_the_cpu(gpu):
    precision.choose_dtype("fp32", gpu)
    images, _ = arrays(2, 64)
    model = network(16)
    outputs = []
    for device in (torch.device("cpu"), gpu):
        with torch.inference_mode():
            outputs.append(model.to(device)(unit_interval(torch.from_numpy(images).to(device))).cpu())
    on_cpu, on_gpu = outputs
    assert float((on_gpu - on_cpu).norm() / on_cpu.norm()) < 1e-4


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_validation_dice_of_the_same_weights_equals_the_cpus(gpu, name):
    """Whatever format the weights were trained in, evaluation predicts in single precision on both."""
    dataset = large_data(train=32, val=16, side=64)
    recipe = PLAIN | {"epochs": 20, "batch_size": 8}
    fitted = run(network(16), dataset=dataset, recipe=recipe, dtype=dtype_of(name, gpu), device=gpu)
    model = network(16)
    model.load_state_dict(fitted.state)
    images, masks = dataset.samples.images, dataset.samples.masks
    dice = []
    for device in ("cpu", gpu):
        predicted = predict(model, images, dataset.val_rows, device)
        rows = [count(one.plain >= 128, masks[row]) for one, row in zip(predicted, dataset.val_rows, strict=True)]
        dice.append(scores.dice(Counts.of(np.array(rows)).pooled()))
    assert dice[0] == pytest.approx(dice[1], abs=1e-4)
    assert dice[0] > 0.6, "trained weights, not chance"
    assert dice[0] == pytest.approx(fitted.history[-1]["val_dice"], abs=1e-4 if name == "fp32" else 0.02)


@pytest.mark.filterwarnings("default")  # of the compiler, about the card
def test_compiled_training_learns_the_same(gpu):
    """The last batch of an epoch is smaller: a second shape. Kernels sum in another order."""
    eager = run(network(8), device=gpu)
    compiled = run(network(8), recipe=PLAIN | {"compile": True}, device=gpu)
    for one, two in zip(eager.history, compiled.history, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.01)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=0.01)


def test_fastest_algorithms_learn_the_same(gpu):
    usual = run(network(8), device=gpu)
    use_deterministic_algorithms(False)
    fastest = run(network(8), device=gpu)
    for one, two in zip(usual.history, fastest.history, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.01)


# ---- out of memory ----


def test_a_network_that_does_not_fit_is_refused_and_a_smaller_batch_goes_ahead(gpu):
    """A card of 3 GB, made of the one at hand; the published network needs about 0.5 GB before the first image."""
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3e9 / total), gpu)
    recipe = PLAIN | {"epochs": 1, "batch_size": 24}
    try:
        with pytest.raises(InputError) as refusal:
            run(network(64), dataset=large_data(), recipe=recipe, device=gpu)
        assert len(refusal.value.problems) == 1
        for said in ("train.batch_size=24", "does not fit into the memory of cuda:0", "Raise train.accumulation"):
            assert said in refusal.value.problems[0]
        del refusal  # its traceback holds the network
        gc.collect()
        torch.cuda.empty_cache()
        run(network(64), dataset=large_data(), recipe=recipe | {"accumulation": 24}, device=gpu)  # as it says
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)


# ---- several processes ----


def uneven_data() -> Data:
    """Eleven images in batches of four: of the last batch, the second of two processes gets one, the first two."""
    return data()


def member(folder: str, dtype: torch.dtype, backend: str) -> None:
    """One of several processes, on the GPU of its number or, through gloo, all on the first: NCCL refuses that."""
    use_deterministic_algorithms(True)
    world = distributed.world_from_environment()
    device = choose_device("cuda", world.local_rank if backend == "nccl" else 0)
    # a minute instead of half an hour: a process that waits in vain is a failure here
    dist.init_process_group(backend, timeout=timedelta(minutes=1))
    try:
        fitted = run(network(4), dataset=uneven_data(), dtype=dtype, device=device, world=world)
    finally:
        dist.destroy_process_group()
    if world.first:
        Path(folder, "outcome.json").write_text(json.dumps(fitted.history))


@pytest.mark.parametrize("name", ["fp32", "bf16"])
@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_two_processes_train_like_one(gpu, backend, name, tmp_path):
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs a GPU for each process")
    dtype = dtype_of(name, gpu)
    one = run(network(4), dataset=uneven_data(), dtype=dtype, device=gpu).history
    distributed.launch(partial(member, str(tmp_path), dtype, backend), 2)
    two = json.loads((tmp_path / "outcome.json").read_text())
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, abs=2e-3 if name == "fp32" else 2e-2)


def test_more_processes_than_cards_are_refused(gpu):
    cards = torch.cuda.device_count()
    with pytest.raises(InputError, match=rf"train\.processes: each process .* there are {cards}"):
        choose_device("cuda", local_rank=cards)


def test_batch_norm_is_torchs_synchronised_one(gpu, monkeypatch):
    monkeypatch.setattr(distributed, "_alone", lambda: False)
    model = distributed.synchronise_batch_norm(network(2), gpu)
    assert not any(type(module) is nn.BatchNorm2d for module in model.modules())
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
