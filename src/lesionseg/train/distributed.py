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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from lesionseg.common.errors import InputError

Shared = TypeVar("Shared")
MEETING = "LESIONSEG_MEETING"  # environment variable: the file through which the processes of `launch` find each other


@dataclass(frozen=True)
class Place:
    """Which of how many processes this one is."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0  # on its machine

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def place() -> Place | None:
    """This process's place as `launch` or torchrun told it through the environment; None when started plainly."""
    if "WORLD_SIZE" not in os.environ:
        return None
    return Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


def launch(function: Callable[[], None], processes: int) -> None:
    """Run `function` in `processes` new processes on this machine that find their `place`, and wait for all.

    `function` must be importable (of a module or the main script). When one fails, the others are stopped, and its
    InputError is raised here; when this process is killed, they end too.
    """
    with tempfile.TemporaryDirectory() as private:  # of mode 700
        children = start_processes(_child, (function, processes, private), processes, join=False, start_method="spawn")
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
                    f"params.yaml: train.processes: one of the {processes} processes was killed, as the system does "
                    "when memory runs out; lower train.processes or train.batch_size"
                ) from None
            raise


def _child(rank: int, function: Callable[[], None], processes: int, private: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        MEETING: f"{private}/store",
        "GLOO_SOCKET_IFNAME": _loopback(),
        "NCCL_SOCKET_IFNAME": _loopback(),
    }
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))  # they share the cores
    try:
        function()
    except InputError as error:
        Path(private, f"problems-{rank}").write_text("\n".join(error.problems), encoding="utf-8")
        raise SystemExit(1) from None


@contextmanager
def group(place: Place, device: torch.device) -> Iterator[None]:
    """Connect the processes while the context lasts; a single one that torchrun did not start needs no connection.

    Those of `launch` meet through a file that only this user can read, and listen on the loopback interface alone.
    Those of torchrun meet at its master's address, which anyone who can reach it may talk to: for trusted networks.
    """
    if place.processes == 1 and not {MEETING, "MASTER_ADDR"} & os.environ.keys():
        yield
        return
    options = {"device_id": device} if device.type == "cuda" else {}
    if MEETING in os.environ:
        options |= {
            "init_method": Path(os.environ[MEETING]).as_uri(),
            "rank": place.rank,
            "world_size": place.processes,
        }
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **options)
    try:
        yield
    finally:
        dist.destroy_process_group()


def add_up(tensor: Tensor) -> Tensor:
    """Return the sum of every process's `tensor`; of a single process, the tensor itself."""
    if _alone():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def from_first(value: Shared) -> Shared:
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
    return value if first else torch.load(io.BytesIO(content.cpu().numpy()), map_location="cpu", weights_only=True)


def share_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Make batch norm take its statistics over the samples of all processes. Names and weights stay the same."""
    if _alone():
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for module in model.modules():
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = _SyncBatchNorm
        return model
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = GlobalBatchNorm2d
    return model


def share_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap `model` so that each backward pass leaves the mean of the processes' gradients in all of them."""
    if _alone():
        return model
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=False,  # equal everywhere: statistics are over all processes
        gradient_as_bucket_view=True,
    )


class _SyncBatchNorm(nn.SyncBatchNorm):
    """torch's, also under autocast for a process without samples: torch announces that process's zero statistics in
    the dtype of its input, and the exchange wants the float32 in which the others send theirs."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.numel() else images.float())


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of all processes' samples together (B, C, H, W), on any device.

    A process without samples (B = 0) takes part. In evaluation it is torch's.
    """

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        values = images.float()
        pixels = values.new_tensor([values.shape[0] * values.shape[2] * values.shape[3]])
        total = _Sum.apply(torch.cat([values.sum((0, 2, 3)), pixels]))
        count = total[-1].detach()
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
        return add_up(tensor)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return add_up(gradient.contiguous())


def _alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def _loopback() -> str:
    """The name of the interface that no other machine can reach: lo, on macOS lo0."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
