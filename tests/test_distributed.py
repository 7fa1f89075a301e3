"""Several processes give what one gives."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from lesionseg.common.errors import InputError
from lesionseg.train import distributed
from lesionseg.train.distributed import World, launch
from lesionseg.train.loop import unit_interval
from tiny_training import CPU, EVERYTHING, PLAIN, arrays, bce_dice, member, network

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


def gradients_of_shares(folder: str, batches: list[list[int]]) -> None:
    """Take this process's share of each batch through U-Net forward and backward; the first saves what came out."""
    world = distributed.world_from_environment()
    with distributed.process_group(world, CPU):
        for batch, sizes in enumerate(batches):
            start = sum(sizes[: world.rank])
            model = distributed.synchronise_batch_norm(network(4), CPU)
            wrapped = distributed.synchronise_gradients(model, CPU)
            images, masks = (torch.from_numpy(array[start : start + sizes[world.rank]]) for array in arrays(sum(sizes)))
            image_losses = bce_dice(wrapped(unit_interval(images)), masks[:, None])
            (image_losses.sum() * world.size / sum(sizes)).backward()
            if world.first:
                gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
                torch.save(
                    {"gradients": gradients, "buffers": dict(model.named_buffers())}, Path(folder, f"{batch}.pt")
                )


def test_gradients_and_statistics_are_those_of_one_process_with_the_whole_batch(tmp_path):
    """An idle process, as in a last batch of one image, takes part without a sample."""
    batches = [[3, 2], [1, 0]]
    launch(partial(gradients_of_shares, str(tmp_path), batches), 2)
    for batch, sizes in enumerate(batches):
        shared = torch.load(tmp_path / f"{batch}.pt")
        model = network(4)
        images, masks = arrays(sum(sizes))
        logits = model(unit_interval(torch.from_numpy(images)))
        bce_dice(logits, torch.from_numpy(masks)[:, None]).mean().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(shared["gradients"][name], parameter.grad, msg=name, **TOLERANCE)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(shared["buffers"][name], buffer, msg=name, **TOLERANCE)


def outcome(folder: Path) -> dict:
    return json.loads((folder / "outcome.json").read_text())


@pytest.mark.parametrize(
    ("recipe", "name", "counted"),
    [
        (EVERYTHING | {"accumulation": 1}, "unet", 2e-3),
        pytest.param(PLAIN, "unet", 2e-3, marks=pytest.mark.slow),
        pytest.param(PLAIN, "deeplabv3", 4e-3, marks=pytest.mark.slow),  # 2.5e-3 apart with AVX512
        pytest.param(PLAIN, "nnunet_resenc", 2e-3, marks=pytest.mark.slow),  # no batch norm, deep supervision
        pytest.param(PLAIN, "quarter_unet", 2e-3, marks=pytest.mark.slow),  # a batch norm of its own
    ],
)
def test_two_processes_train_like_one(tmp_path, recipe, name, counted):
    """Eleven images in batches of five: one process is idle in the last. Losses to 2e-3; Dice and IoU to `counted`,
    as rounding moves pixels over the threshold."""
    recipe = recipe | {"batch_size": 5}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        run = partial(member, str(folder), recipe, name=name)
        run() if processes == 1 else launch(run, processes)
    for one, two in zip(*(outcome(tmp_path / number)["history"] for number in "12"), strict=True):
        for column in one:
            assert two[column] == pytest.approx(one[column], abs=2e-3 if "loss" in column else counted), column


@pytest.mark.slow
def test_two_processes_killed_and_resumed(tmp_path):
    for name, deaths in (("whole", [None]), ("killed", [2, 5, None])):
        (tmp_path / name).mkdir()
        for dies_at in deaths:
            run = partial(member, str(tmp_path / name), PLAIN, 1e-9, dies_at)
            if dies_at is None:
                launch(run, 2)
            else:
                with pytest.raises(InputError, match=r"train\.processes: one of the 2 processes was killed"):
                    launch(run, 2)
    whole, killed = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert killed["digest"] == whole["digest"]
    assert killed["loss_calls"] < whole["loss_calls"]


def refuse() -> None:
    world = distributed.world_from_environment()
    with distributed.process_group(world, CPU):
        if world.rank == 1:
            raise InputError(["first problem", "second problem"])
        distributed.all_reduce(torch.ones(1))  # waits for the other, in vain


def test_an_input_error_of_one_process_ends_all_and_is_raised_here():
    with pytest.raises(InputError) as error:
        launch(refuse, 2)
    assert error.value.problems == ["first problem", "second problem"]


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def talk(folder: str) -> None:
    """Tell who listens where, and what comes of values that the first process passes on."""
    world = distributed.world_from_environment()
    with distributed.process_group(world, CPU):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process().net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        value = {"weights": torch.arange(5.0), "epoch": 3, "history": [{"dice": 0.5}], "none": None}
        found = distributed.broadcast(value if world.first else "the second's")
        assert torch.equal(found["weights"], value["weights"])
        assert {**found, "weights": 0} == {**value, "weights": 0}
        trap, refused = Trap(f"{folder}/sprung"), ""
        try:
            distributed.broadcast(trap if world.first else None)
        except Exception as error:
            refused = type(error).__name__
        Path(folder, f"{world.rank}.json").write_text(json.dumps({"listening": listening, "refused": refused}))


def test_processes_listen_on_loopback_alone_and_pass_on_data_but_no_code(tmp_path):
    launch(partial(talk, str(tmp_path)), 2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for address in first["listening"] + second["listening"]:
        assert ipaddress.ip_address(address).is_loopback, address
    assert first["listening"]
    assert second["listening"]
    assert second["refused"] == "UnpicklingError"
    assert not (tmp_path / "sprung").exists()


def linger(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell sets it for what runs in its background
    world = distributed.world_from_environment()
    Path(folder, f"{world.rank}.pid").write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path):
    """`kill -9` of the stage leaves nobody behind who would go on writing."""
    code = f"import test_distributed as t, functools; t.launch(functools.partial(t.linger, {str(tmp_path)!r}), 2)"
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "src")])}
    parent = subprocess.Popen([sys.executable, "-c", f"if __name__ == '__main__':\n {code}"], env=environment)
    files = [tmp_path / "0.pid", tmp_path / "1.pid"]
    deadline = time.monotonic() + 200
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 200
    pids = [int(file.read_text()) for file in files]
    while any(_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_environment(monkeypatch, **variables: str) -> World | None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return distributed.world_from_environment()


def test_the_world_is_what_torchrun_says(monkeypatch):
    assert in_environment(monkeypatch) is None
    world = in_environment(monkeypatch, RANK="5", WORLD_SIZE="8", LOCAL_RANK="1")
    assert world == World(rank=5, size=8, local_rank=1)
    assert not world.first


def test_a_scheduler_that_sets_nothing_but_world_size_1_starts_it_plainly(monkeypatch):
    assert in_environment(monkeypatch, WORLD_SIZE="1") is None


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "-1"},
    ],
)
def test_an_environment_that_is_no_world_is_one_line(monkeypatch, variables):
    with pytest.raises(InputError, match=r"environment: found RANK=.*, WORLD_SIZE=.*, LOCAL_RANK=") as refused:
        in_environment(monkeypatch, **variables)
    assert len(refused.value.problems) == 1


def test_what_several_processes_are_not_known_to_do_right_is_refused():
    cuda = torch.device("cuda", 0)
    distributed.require_supported(World(), cuda, smallest_batch=1, compile=True)
    distributed.require_supported(World(size=2), CPU, smallest_batch=1, compile=False)
    distributed.require_supported(World(size=2), cuda, smallest_batch=2, compile=False)
    with pytest.raises(InputError, match=r"train\.compile: found true with 2 processes"):
        distributed.require_supported(World(size=2), CPU, smallest_batch=8, compile=True)
    with pytest.raises(InputError, match=r"train\.processes: found 4, but the last batch of an epoch has 3 images"):
        distributed.require_supported(World(size=4), cuda, smallest_batch=3, compile=False)


def test_a_single_process_needs_no_connection(monkeypatch):
    """Neither to other processes nor through NCCL to itself, also where torchrun started it."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with distributed.process_group(World(), CPU):
        assert not torch.distributed.is_initialized()
        tensor = torch.ones(2)
        assert distributed.all_reduce(tensor) is tensor
        assert distributed.broadcast("x") == "x"
        model = nn.BatchNorm2d(2)
        assert distributed.synchronise_gradients(distributed.synchronise_batch_norm(model, CPU), CPU) is model
        assert type(model) is nn.BatchNorm2d
