"""The loop against a plain one, its exactness through kills, and what each option changes."""

import json
import math
import multiprocessing
import os
import random
import signal
import time
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from lesionseg.common.errors import InputError
from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts
from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.loading import order
from lesionseg.train.loop import unit_interval
from lesionseg.train.progress import Tally
from tiny_training import (
    CPU,
    EVERYTHING,
    PLAIN,
    TRAIN,
    VAL,
    arrays,
    bce_dice,
    data,
    digest,
    network,
    process,
    run,
    terminated_with_its_loaders,
)

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


pytestmark = pytest.mark.usefixtures("one_thread")


# ---- what it computes ----


def test_it_is_the_plain_loop():
    """The same weights as Adam by hand on the mean loss of each batch, the last and smaller one included."""
    images, masks = arrays()
    inputs, targets = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(masks)[:, None].float()
    model, loss = network(), bce_dice
    optimiser = torch.optim.Adam(model.parameters(), lr=PLAIN["learning_rate"])
    for epoch in range(1, PLAIN["epochs"] + 1):
        rows = torch.from_numpy(order(PLAIN["seed"], epoch, TRAIN))
        for batch in rows.split(PLAIN["batch_size"]):
            optimiser.zero_grad()
            loss(model(inputs[batch]), targets[batch]).mean().backward()
            optimiser.step()
    fitted = run(dataset=data(augment=None))
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(fitted.state[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_validation_scores_are_those_of_the_returned_weights_over_all_images():
    fitted = run()
    model = network()
    model.load_state_dict(fitted.state)
    images, masks = arrays()
    targets = torch.from_numpy(masks)[VAL][:, None]
    with torch.no_grad():
        logits = model.eval()(unit_interval(torch.from_numpy(images)[VAL]))
    predicted, truth = (logits >= 0).numpy(), targets.numpy() > 0
    tp, fp, fn = (predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()
    last = fitted.history[-1]
    assert last["val_dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-3)
    assert last["val_loss"] == pytest.approx(bce_dice(logits, targets.float()).mean().item(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_validation_does_not_depend_on_the_batch_size(batch_size):
    """With weights and running statistics held where they started."""
    frozen = PLAIN | {"epochs": 1, "learning_rate": 1e-12}

    def validation_scores(batch):
        model = network()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        row = run(model, recipe=frozen | {"batch_size": batch}).history[0]
        return row["val_loss"], row["val_dice"], row["val_iou"]

    assert validation_scores(batch_size) == pytest.approx(validation_scores(4), abs=1e-6)


def test_batches_of_one_and_a_single_validation_image():
    fitted = run(recipe=PLAIN | {"batch_size": 1, "epochs": 1}, dataset=data(val=[12]))
    assert 0 < fitted.history[0]["val_loss"] < 10


@pytest.mark.parametrize("table", [(5, 3, 2, 90), (0, 0, 0, 100), (0, 4, 0, 96), (0, 0, 7, 93)])
def test_history_scores_are_those_of_the_evaluation(table):
    tally = Tally(2, CPU)
    tally.losses, tally.counts = torch.tensor([1.0, 2.0]), torch.tensor([table, table])
    row = tally.row("val")
    counts = Counts.of(np.array([table, table])).pooled()
    assert row == {"val_loss": 1.5, "val_dice": scores.dice(counts), "val_iou": pytest.approx(scores.iou(counts))}


def test_training_lowers_the_loss_and_finds_the_discs():
    fitted = run(network(8), recipe=PLAIN | {"epochs": 25, "learning_rate": 1e-2}, dtype=BF16)
    assert fitted.history[-1]["train_loss"] < 0.6 * fitted.history[0]["train_loss"]
    assert fitted.history[-1]["val_dice"] > 0.8


# ---- exactness ----


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("recipe", [PLAIN, EVERYTHING])
def test_two_runs_are_identical(recipe, dtype):
    assert digest(run(recipe=recipe, dtype=dtype)) == digest(run(recipe=recipe, dtype=dtype))


def test_two_threads_are_deterministic():
    torch.set_num_threads(2)
    recipe = PLAIN | {"epochs": 1}
    assert digest(run(network(8), recipe=recipe, dtype=BF16)) == digest(run(network(8), recipe=recipe, dtype=BF16))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    assert digest(run(workers=workers)) == digest(run(workers=0))


def test_the_seed_changes_the_run():
    assert digest(run(recipe=PLAIN | {"seed": 1})) != digest(run())


def test_random_layers_draw_by_position_alone():
    """Dropout in a resumed run is that of the whole one: its numbers come from (seed, epoch, step)."""

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))

    whole = digest(run(model()))
    torch.rand(7)  # whatever the process drew before
    assert digest(run(model())) == whole


# ---- kills ----

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    ["lesionseg.train.loop", "lesionseg.networks", "lesionseg.train.losses", "lesionseg.train.augment"]
)


def in_process(folder, recipe, dtype, minutes, death, seconds=None) -> int:
    """Exit code of a run in a process of its own; killed from outside after `seconds`."""
    child = FORKSERVER.Process(target=process, args=(folder, recipe, dtype, minutes, death))
    child.start()
    child.join(seconds)
    child.kill()
    child.join()
    return child.exitcode


def outcome(folder) -> dict:
    return json.loads((folder / "outcome.json").read_text())


ALWAYS = 1e-9  # minutes between checkpoints: one after every step


@pytest.mark.parametrize(
    ("recipe", "dtype", "minutes", "deaths"),
    [
        (EVERYTHING, FP16, ALWAYS, [("step", 2), ("write", 1), ("step", 9), ("epoch", 2), ("write", 2), ("step", 3)]),
        (PLAIN, BF16, 0, [("step", 9), ("write", 2), ("epoch", 4)]),  # only epochs are saved
    ],
)
def test_killed_and_resumed_ends_like_never_killed(tmp_path, recipe, dtype, minutes, deaths):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    recipe = recipe | {"epochs": 5}
    assert in_process(tmp_path / "whole", recipe, dtype, 60, ("never",)) == 0
    whole = outcome(tmp_path / "whole")
    for death in deaths:
        assert in_process(tmp_path / "killed", recipe, dtype, minutes, death) == -signal.SIGKILL, death
    assert in_process(tmp_path / "killed", recipe, dtype, minutes, ("never",)) == 0
    resumed = outcome(tmp_path / "killed")
    assert resumed["history"] == whole["history"]
    assert resumed["digest"] == whole["digest"]
    assert resumed["loss_calls"] < whole["loss_calls"]  # it went on, and did not start again


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    recipe = EVERYTHING | {"epochs": 40}
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    began = time.monotonic()
    assert in_process(tmp_path / "whole", recipe, BF16, 60, ("never",)) == 0
    longest = time.monotonic() - began
    moments, kills = random.Random(0), 0
    while in_process(tmp_path / "killed", recipe, BF16, ALWAYS, ("never",), moments.uniform(0.1, longest)) != 0:
        kills += 1
        assert kills < 100
    assert outcome(tmp_path / "killed")["digest"] == outcome(tmp_path / "whole")["digest"]


def test_ctrl_c_saves_the_step_under_way(tmp_path):
    loss = bce_dice
    calls = []

    def interrupted(logits, targets):
        calls.append(len(targets))
        if len(calls) == 5:  # the first step of the second epoch: three of training and one of validation before
            os.kill(os.getpid(), signal.SIGINT)
        return loss(logits, targets)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started with & come with Ctrl-C ignored
    checkpoints = Checkpoints(tmp_path, "run", 60)
    with pytest.raises(KeyboardInterrupt):
        run(loss=interrupted, checkpoints=checkpoints)
    saved = checkpoints.load()
    assert (saved["epoch"], saved["steps_done"]) == (2, 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert digest(run(checkpoints=checkpoints)) == digest(run())


def test_interrupted_in_the_last_step_of_an_epoch_it_goes_on_with_the_validation(tmp_path, capsys):
    calls = 0

    def interrupted(logits, targets):
        nonlocal calls
        calls += 1
        if calls == 7:  # the third and last step of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return bce_dice(logits, targets)

    checkpoints = Checkpoints(tmp_path, "run", 60)
    with pytest.raises(KeyboardInterrupt):
        run(loss=interrupted, checkpoints=checkpoints)
    saved = checkpoints.load()
    assert (saved["epoch"], saved["steps_done"]) == (2, 3)
    capsys.readouterr()
    fitted = run(checkpoints=checkpoints)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("checkpoint_1.pt: epoch 2, validation")
    assert said[1].startswith("epoch 2/3")
    assert "images/s" not in said[1]  # none was trained on
    assert all(speed > 0 for speed in fitted.images_per_second)
    assert digest(fitted) == digest(run())


def test_a_finished_run_started_again_trains_nothing(tmp_path, capsys):
    """As when it is killed before its weights are written, or as a member of an ensemble."""
    checkpoints = Checkpoints(tmp_path, "run", 60)
    first = run(recipe=EVERYTHING, checkpoints=checkpoints)
    capsys.readouterr()

    def never(logits, targets):
        raise AssertionError

    told = []
    again = run(loss=never, recipe=EVERYTHING, checkpoints=checkpoints, on_epoch=told.append)
    assert "its last epoch was done" in capsys.readouterr().out
    assert digest(again) == digest(first)
    assert told == first.history


def test_sigterm_to_the_whole_group_saves_the_step_under_way(tmp_path):
    """The loading processes get it too and must not take the run down before it has saved."""
    child = FORKSERVER.Process(target=terminated_with_its_loaders, args=(tmp_path,))
    child.start()
    child.join(100)
    assert child.exitcode == 1  # by KeyboardInterrupt, not by a loader's death
    saved = Checkpoints(tmp_path, "run", 60).load()
    assert (saved["epoch"], saved["steps_done"]) == (1, 2)


def test_a_loaded_checkpoint_is_freed(tmp_path, monkeypatch):
    """At the published width it is as large as the network, its optimiser and its average together."""
    checkpoints = Checkpoints(tmp_path, "run", 0)
    run(recipe=PLAIN | {"epochs": 1}, checkpoints=checkpoints)
    loaded = []
    load = checkpoints.load

    def watched():
        state = load()
        loaded.extend(map(weakref.ref, [*state["model"].values(), state["losses"], state["counts"]]))
        return state

    monkeypatch.setattr(checkpoints, "load", watched)
    alive = []
    run(checkpoints=checkpoints, on_epoch=lambda row: alive.append(sum(one() is not None for one in loaded)))
    assert loaded
    assert alive[-1] == 0


def test_a_resumed_run_tells_the_epochs_before_it_again(tmp_path):
    told = []

    def stop_in_second(row):
        told.append(row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_epoch=stop_in_second, checkpoints=Checkpoints(tmp_path, "run", 0))
    told.clear()
    fitted = run(on_epoch=told.append, checkpoints=Checkpoints(tmp_path, "run", 0))
    assert told == fitted.history
    assert [row["epoch"] for row in told] == [1, 2, 3]


# ---- what stops it ----


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_images(tmp_path, value):
    loss, calls = bce_dice, 0

    def broken(logits, targets):
        nonlocal calls
        calls += 1
        result = loss(logits, targets)
        # the second step of the second epoch, its first and third image: 3 + 1 calls an epoch
        return result * torch.tensor([value, 1, value, 1]) if calls == 6 else result

    checkpoints = Checkpoints(tmp_path, "run", 0)
    with pytest.raises(InputError) as stopped:
        run(loss=broken, checkpoints=checkpoints)
    rows = order(PLAIN["seed"], 2, TRAIN)
    message = str(stopped.value)
    assert "epoch 2, step 2 " in message
    assert f"(images T_{rows[4]:02d}, T_{rows[6]:02d})" in message
    assert "train.learning_rate" in message
    assert str(checkpoints.path) in message
    saved = checkpoints.load()  # of before
    assert saved["epoch"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())
    assert digest(run(checkpoints=checkpoints)) == digest(run())


def test_a_validation_loss_that_is_not_finite_stops():
    loss = bce_dice

    def broken(logits, targets):
        return loss(logits, targets) * (float("nan") if len(targets) == len(VAL) and not logits.requires_grad else 1)

    with pytest.raises(InputError, match=r"validation loss .* 3 images \(T_11, T_12, T_13\)"):
        run(loss=broken)


def test_running_out_of_gpu_memory_names_the_parameters():
    def loss(logits, targets):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    with pytest.raises(InputError, match=r"train\.batch_size=4 .* train\.accumulation") as stopped:
        run(loss=loss)
    assert "CUDA out of memory" in str(stopped.value)


def test_running_out_of_cpu_memory_names_the_parameters():
    def loss(logits, targets):
        return torch.empty(2**60, dtype=torch.uint8)

    with pytest.raises(InputError, match=r"train\.batch_size=4 .* the machine's memory"):
        run(loss=loss)


def test_a_batch_that_is_too_small_for_batch_norm_is_named():
    images, masks = arrays(side=16)
    dataset = data()
    dataset.samples.images, dataset.samples.masks, dataset.samples.augment = images, masks, None
    with pytest.raises(InputError, match=r"preprocess\.image_size or train\.batch_size"):
        run(dataset=dataset, recipe=PLAIN | {"batch_size": 1})


# ---- what the options change ----


def weights(fitted) -> torch.Tensor:
    return torch.cat([tensor.float().flatten() for tensor in fitted.state.values()])


def test_accumulated_parts_give_the_gradient_of_the_whole_batch():
    """Without batch norm, whose statistics are those of each part."""

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    whole, parts = (run(model(), recipe=PLAIN | {"accumulation": n}) for n in (1, 3))
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)
    assert parts.history[-1]["train_loss"] == pytest.approx(whole.history[-1]["train_loss"], rel=1e-5)


def test_learning_rate_schedule_reaches_the_history():
    rates = [row["learning_rate"] for row in run(recipe=PLAIN | {"schedule": "cosine", "warmup_epochs": 1}).history]
    assert rates[0] == pytest.approx(1e-3 * 3 / 4)  # the last of three steps of the warm-up
    assert rates[1:] == pytest.approx([1e-3 * (1 + math.cos(math.pi * done / 6)) / 2 for done in (2, 5)])
    assert [row["learning_rate"] for row in run().history] == [1e-3] * 3


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(InputError, match="warmup_epochs"):
        run(recipe=PLAIN | {"warmup_epochs": 3})


def test_weight_decay_shrinks_the_weights_and_spares_norms():
    plain, decayed = run(), run(recipe=PLAIN | {"weight_decay": 30.0})
    norm = lambda fitted, name: fitted.state[name].norm().item()  # noqa: E731
    assert norm(decayed, "bottom.0.weight") < 0.9 * norm(plain, "bottom.0.weight")
    assert norm(decayed, "bottom.1.weight") == pytest.approx(norm(plain, "bottom.1.weight"), rel=0.02)


def test_gradient_clip_limits_the_step():
    """Adam's step hardly depends on the gradient's length, so that it is the epsilon that shows a tiny one."""
    start = torch.cat([tensor.float().flatten() for tensor in network().parameters()])

    def moved(clip):
        model = network()
        run(model, recipe=PLAIN | {"epochs": 1, "gradient_clip": clip})
        return (torch.cat([tensor.float().flatten() for tensor in model.parameters()]) - start).norm().item()

    assert moved(1e-12) < 0.1 * moved(None)
    assert moved(1e6) == pytest.approx(moved(None), rel=1e-5)


def test_average_of_weights_is_what_is_validated_and_kept():
    model = network()
    fitted = run(model, recipe=PLAIN | {"ema_decay": 0.5})
    assert not torch.equal(fitted.state["head.weight"], model.state_dict()["head.weight"])
    plain = run()
    assert torch.equal(plain.state["head.weight"], model.state_dict()["head.weight"])  # the same training
    assert fitted.history[0]["train_loss"] == plain.history[0]["train_loss"]
    assert fitted.history[0]["val_loss"] != plain.history[0]["val_loss"]


def test_best_keeps_the_weights_of_the_highest_validation_dice():
    """Trained towards the inverted masks, so that the last epoch is not the best."""
    loss = bce_dice

    def inverted(**changes):
        recipe = PLAIN | {"epochs": 6, "learning_rate": 0.01} | changes
        return run(network(4), loss=lambda logits, targets: loss(logits, 1 - targets), recipe=recipe)

    best, last = inverted(keep="best"), inverted()
    assert best.history == last.history
    dice = [row["val_dice"] for row in best.history]
    assert best.epoch == dice.index(max(dice)) + 1 < 6
    assert last.epoch == 6
    assert torch.equal(weights(best), weights(inverted(epochs=best.epoch)))


def test_early_stopping_waits_for_its_patience():
    rough = PLAIN | {"epochs": 40, "learning_rate": 0.05, "early_stopping": 2}
    history = run(recipe=rough).history
    dice = [row["val_dice"] for row in history]
    assert len(history) < 40
    assert dice.index(max(dice)) == len(dice) - 3


def test_half_precision_agrees_with_single():
    """One epoch: the loss to 1 %, weights to the size of a few of Adam's steps."""
    single = run(network(8), recipe=PLAIN | {"epochs": 1})
    for dtype in (BF16, FP16):
        half = run(network(8), recipe=PLAIN | {"epochs": 1}, dtype=dtype)
        assert half.history[0]["train_loss"] == pytest.approx(single.history[0]["train_loss"], rel=0.01)
        assert (weights(half) - weights(single)).abs().median() < 3e-3


@pytest.mark.slow
def test_compiled_agrees_with_eager():
    single, compiled = run(), run(recipe=PLAIN | {"compile": True})
    assert compiled.history[-1]["train_loss"] == pytest.approx(single.history[-1]["train_loss"], rel=1e-3)
    assert compiled.state.keys() == single.state.keys()  # the names are those of the plain network


def test_every_image_is_trained_on_once_an_epoch_and_validated_unaugmented():
    seen = []

    def note(image, mask, epoch, row):
        seen.append((epoch, row))
        return image, mask

    run(dataset=data(augment=note))
    assert sorted(seen) == [(epoch, row) for epoch in (1, 2, 3) for row in TRAIN]


# ---- on a GPU ----

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture
def gpu() -> torch.device:
    from lesionseg.common.hardware import choose_device, use_deterministic_algorithms

    use_deterministic_algorithms(True)
    yield choose_device("cuda")
    torch.use_deterministic_algorithms(False)


@cuda
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [FP32, BF16, FP16])
def test_two_runs_on_a_gpu_are_identical(gpu, dtype):
    first, second = (run(network(16), recipe=EVERYTHING, dtype=dtype, device=gpu, workers=n) for n in (2, 0))
    assert digest(first) == digest(second)


@cuda
@pytest.mark.cuda
def test_killed_and_resumed_on_a_gpu(tmp_path):
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    digests = []
    for name, deaths in (("whole", []), ("killed", [("step", 3), ("write", 2), ("step", 5)])):
        (tmp_path / name).mkdir()
        for death in [*deaths, ("never",)]:
            child = context.Process(target=process, args=(tmp_path / name, EVERYTHING, FP16, ALWAYS, death, "cuda"))
            child.start()
            child.join()
        digests.append(outcome(tmp_path / name)["digest"])
    assert digests[0] == digests[1]


@cuda
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_half_precision_on_a_gpu_agrees_with_single(gpu, dtype):
    single = run(network(16), recipe=PLAIN | {"epochs": 1}, device=gpu)
    half = run(network(16), recipe=PLAIN | {"epochs": 1}, device=gpu, dtype=dtype)
    assert half.history[0]["train_loss"] == pytest.approx(single.history[0]["train_loss"], rel=0.01)


@cuda
@pytest.mark.cuda
def test_validation_on_a_gpu_equals_the_cpu(gpu):
    fitted = run(network(16), device=gpu)
    frozen = PLAIN | {"epochs": 1, "learning_rate": 1e-12}
    rows = []
    for device in (CPU, gpu):
        model = network(16)
        model.load_state_dict(fitted.state)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        rows.append(run(model, recipe=frozen, device=device).history[0])
    assert rows[0]["val_dice"] == pytest.approx(rows[1]["val_dice"], abs=1e-4)


@cuda
@pytest.mark.cuda
def test_a_batch_that_does_not_fit_on_a_gpu_is_named(gpu):
    def loss(logits, targets):
        return torch.empty(2**50, device=gpu)

    with pytest.raises(InputError, match=r"train\.batch_size=4 .* train\.accumulation"):
        run(loss=loss, device=gpu)
