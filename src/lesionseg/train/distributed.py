"""Several processes that share each batch: started here on one machine, or by torchrun on one or many.

Each process holds the whole network and takes its share of every batch; gradients and batch-norm statistics are
those of the whole batch, so that the result is one process's up to rounding. On CUDA each process has a GPU of its
own (NCCL, torch's SyncBatchNorm); on CPUs they talk through gloo and `GlobalBatchNorm2d` below, since SyncBatchNorm
has no CPU form.
"""

import io
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import (  # type: ignore[attr-defined]  # torch's types lack the second last
    ProcessExitedException,
    ProcessRaisedException,
    _prctl_pr_set_pdeathsig,
    start_processes,
)
from torch.nn import functional

from lesionseg.common.errors import InputError

Shared = TypeVar("Shared")
MEETING = "LESIONSEG_MEETING"  # environment variable: the file through which the processes of `launch` find each other


@dataclass(frozen=True)
class World:
    """All processes of a run, seen from this one."""

    rank: int = 0  # of this one, from 0
    size: int = 1
    local_rank: int = 0  # of this one, on its machine

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def world_from_environment() -> World | None:
    """The world as `launch` or torchrun describe it in the environment; None when started plainly.

    Cluster schedulers set WORLD_SIZE=1 and nothing else for a single process: that counts as a plain start too.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = {name: os.environ[name] for name in names if name in os.environ}
    if "WORLD_SIZE" not in found or found == {"WORLD_SIZE": "1"}:
        return None
    try:
        world = World(*(int(found[name]) for name in names))
    except (KeyError, ValueError):
        world = None
    if world is None or not 0 <= world.rank < world.size or world.local_rank < 0:
        said = ", ".join(f"{name}={found.get(name, '')}" for name in names)
        raise InputError(
            f"environment: found {said}, expected a number each, as torchrun sets them; start the stage with "
            "torchrun or `dvc repro`, or unset WORLD_SIZE"
        )
    return world


def launch(function: Callable[[], None], world_size: int) -> None:
    """Run `function` in `world_size` new processes on this machine, which find their world in the environment, and
    wait for all.

    `function` must be importable (of a module or the main script). When one fails, the others are stopped, and its
    InputError is raised here; when this process is killed, they end too.
    """
    with tempfile.TemporaryDirectory() as private:  # of mode 700
        children = start_processes(
            _child, (function, world_size, private), world_size, join=False, start_method="spawn"
        )
        try:
            while not children.join():
                pass
        except (ProcessExitedException, ProcessRaisedException):
            # whichever failed first: the others may only have lost their connection to the one with the cause
            if said := [
                path.read_text(encoding="utf-8").splitlines() for path in sorted(Path(private).glob("problems-*"))
            ]:
                raise InputError(said[0]) from None
            if any(process.exitcode == -signal.SIGKILL for process in children.processes):
                raise InputError(
                    f"params.yaml: train.processes: one of the {world_size} processes was killed, as the system does "
                    "when memory runs out; lower train.processes or train.batch_size"
                ) from None
            raise


def _child(rank: int, function: Callable[[], None], world_size: int, private: str) -> None:
    # torch has the system send SIGINT when the parent dies, which whoever was started with `nohup … &` ignores
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        MEETING: f"{private}/store",
        "GLOO_SOCKET_IFNAME": _loopback(),
        "NCCL_SOCKET_IFNAME": _loopback(),
    }
    torch.set_num_threads(max(1, torch.get_num_threads() // world_size))  # they share the cores
    try:
        function()
    except InputError as error:
        Path(private, f"problems-{rank}").write_text("\n".join(error.problems), encoding="utf-8")
        raise SystemExit(1) from None


@contextmanager
def process_group(world: World, device: torch.device) -> Iterator[None]:
    """Connect the processes while the context lasts. One alone connects to nothing.

    Those of `launch` meet through a file that only this user can read, and listen on the loopback interface alone.
    Those of torchrun meet at its master's address, open to anyone who can reach it: for trusted networks only.
    """
    if world.size == 1:
        yield
        return
    options: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
    if MEETING in os.environ:
        options |= {
            "init_method": Path(os.environ[MEETING]).as_uri(),
            "rank": world.rank,
            "world_size": world.size,
        }
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **options)
    try:
        yield
    finally:
        dist.destroy_process_group()


def require_processes(asked: int, world: World) -> None:
    """Refuse a number of processes other than `train.processes`, which is recorded with the result."""
    if world.size != asked:
        raise InputError(
            f"params.yaml: train.processes: found {asked}, but torchrun started {world.size}; "
            f"set train.processes={world.size}"
        )


def require_supported(world: World, device: torch.device, smallest_batch: int, compile: bool) -> None:
    """Refuse combinations that are not tested with several processes."""
    if world.size > 1 and compile:
        raise InputError(
            f"params.yaml: train.compile: found true with {world.size} processes, which is not tested; set "
            "train.compile=false or train.processes=1"
        )
    if world.size > smallest_batch and device.type == "cuda":
        raise InputError(
            f"params.yaml: train.processes: found {world.size}, but the last batch of an epoch has {smallest_batch} "
            "images, and a GPU without one is not tested; lower train.processes or change train.batch_size"
        )


def all_reduce(tensor: Tensor) -> Tensor:
    """Return the sum of every process's `tensor`; of a single process, the tensor itself."""
    if _alone():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def broadcast(value: Shared) -> Shared:
    """Return the `value` of the first process, of tensors, numbers, strings, lists and dicts, in all of them.

    torch's broadcast_object_list would unpickle, and so run, whatever arrives; here only such values can.
    """
    if _alone():
        return value
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    first = dist.get_rank() == 0
    packed = io.BytesIO()
    if first:
        torch.save(value, packed)
    length = torch.tensor([packed.tell()], device=device)
    dist.broadcast(length, 0)
    content = (
        torch.frombuffer(packed.getbuffer(), dtype=torch.uint8)
        if first
        else torch.empty(int(length), dtype=torch.uint8)
    )
    content = content.to(device)
    dist.broadcast(content, 0)
    return value if first else torch.load(io.BytesIO(content.cpu().numpy().data), map_location="cpu", weights_only=True)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Make batch norm take its statistics over the samples of all processes. Names and weights stay the same."""
    if _alone():
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = GlobalBatchNorm2d
    return model


def synchronise_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap `model` so that a backward pass leaves the mean of the processes' gradients in all of them."""
    if _alone():
        return model
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=False,  # equal everywhere: statistics are over all processes
        gradient_as_bucket_view=True,
    )


def gradient_sync(network: nn.Module, enabled: bool) -> AbstractContextManager:
    """While the context lasts, backward passes exchange gradients if `enabled`, else only add them up."""
    if enabled or not isinstance(network, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


def pad_empty_batch(images: Tensor, masks: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """The batch as it is, or one blank image for a process without any: it must take part in the exchange of gradients.

    With batch norm the batch stays empty, which leaves the statistics alone; other norms take no empty batch.
    """
    if len(images) or any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return images, masks
    return images.new_zeros(1, *images.shape[1:]), masks.new_zeros(1, *masks.shape[1:])


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of all processes' samples together (B, C, H, W), on any device.

    A process without samples (B = 0) takes part. In evaluation it is torch's.
    """

    momentum: float  # these four are there: torch's batch norm may also do without running statistics
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        values = images.float()
        pixels = values.new_tensor([values.shape[0] * values.shape[2] * values.shape[3]])
        total = _Sum.apply(torch.cat([values.sum((0, 2, 3)), pixels]))
        count = total[-1].detach()
        if count == 1:  # one value has no variance
            statistics = (self.running_mean, self.running_var)
            return functional.batch_norm(images, *statistics, self.weight, self.bias, eps=self.eps)
        mean = total[:-1] / count
        centred = values - mean[:, None, None]
        # a second exchange: E[x²] - E[x]² would cancel where the mean is large
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        return (normalised * self.weight[:, None, None] + self.bias[:, None, None]).to(images.dtype)


class _Sum(torch.autograd.Function):
    """Sum over the processes; its derivative is the same sum of the gradients."""

    @staticmethod
    def forward(context, tensor: Tensor) -> Tensor:
        return all_reduce(tensor)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return all_reduce(gradient.contiguous())


def _alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def _loopback() -> str:
    """The name of the interface that no other machine can reach: lo, on macOS lo0."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
