"""Trained weights as one safetensors file that also tells which network they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic
from lesionseg.formats.weights_file import FORMAT, Metadata, opened, shortened
from lesionseg.networks import build_network

WIDEST = 1024  # base width
DTYPES = {torch.float32: "F32", torch.int64: "I64"}  # of parameters and buffers, as safetensors writes them


def save(path: str | Path, state: Mapping[str, Tensor], metadata: Metadata) -> None:
    """Write a network's `state_dict` and `metadata` to `path`: whole or not at all; same content, same bytes.

    `metadata` needs `network` and `base_width`, and for an Ensemble `members`, which rebuild the network; `load`
    gives back what else it holds.
    """
    missing = {"network", "base_width"} - metadata.keys()
    if missing:
        raise ValueError(f"metadata lacks {', '.join(sorted(missing))}")
    # channels_last weights are stored in the plain order: the file does not depend on the memory layout
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # one entry: safetensors writes several in an order that differs from process to process
    content = serialise(tensors, {FORMAT: json.dumps(metadata, sort_keys=True, allow_nan=False)})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, Metadata]:
    """Rebuild the network saved at `path`: in evaluation mode on `device`, with its metadata.

    A file from a stranger costs no more memory than twice its own length: the network that its metadata asks for is
    built without storage, and its tensors are read only when names, shapes and types are those of that network.

    Raises InputError where the file is missing, is no safetensors file, was not written by `save`, or does
    not fit the network its metadata names.
    """
    path = Path(path)
    with opened(path, "pt") as (file, metadata):
        architecture = Architecture(metadata["network"], metadata["base_width"], metadata.get("members", 1))
        member = _without_storage(path, architecture._replace(members=1))
        _require_fit(path, file, member, architecture)  # before all the members that the file claims are laid out
        network = _without_storage(path, architecture) if architecture.members > 1 else member
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if broken := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise InputError(f"{path}: NaN or infinite values in {shortened(broken)}; train again or `dvc pull` it")
    # Copied, not assigned: where a tensor lies in the file decides how its memory is aligned, and that the last bits.
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval().to(device), metadata


class Architecture(NamedTuple):
    """What rebuilds a network."""

    network: str
    base_width: int
    members: int


def _without_storage(path: Path, named: Architecture) -> nn.Module:
    """The network that the metadata names, on torch's meta device: shapes and types without memory."""
    if named.base_width > WIDEST:
        raise InputError(f"{path}: base_width: found {str(named.base_width)[:20]}, expected at most {WIDEST}")
    try:
        with torch.device("meta"), _Undrawn():
            return build_network(*named)
    except InputError as error:
        raise InputError(
            f"{path}: {problem[:200]}; was it written by another version?" for problem in error.problems
        ) from None


class _Undrawn(TorchFunctionMode):
    """Leaves out drawing from a normal distribution: without storage there is nothing to draw into, and torch 2.13
    imports its compiler for it, which takes as long as importing torch."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is Tensor.normal_:
            return arguments[0]
        return function(*arguments, **(keywords or {}))


def _require_fit(path: Path, file: safe_open, member: nn.Module, named: Architecture) -> None:
    """Hold the names, shapes and types of the tensors in the file against those of its members, before one is read."""
    prefixes = [f"members.{number}." for number in range(named.members)] if named.members > 1 else [""]
    tensors = member.state_dict(keep_vars=True)
    expected = {
        f"{prefix}{name}": (list(tensor.shape), DTYPES[tensor.dtype])
        for prefix in prefixes
        for name, tensor in tensors.items()
    }
    found = {}
    for name in file.keys():  # noqa: SIM118 (no mapping)
        part = file.get_slice(name)
        found[name] = (part.get_shape(), part.get_dtype())
    different = [
        f"{name} is {found[name][1]} {found[name][0]}, expected {expected[name][1]} {expected[name][0]}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    parts = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "different": sorted(different),
    }
    if reasons := [f"{kind}: {shortened(names)}" for kind, names in parts.items() if names]:
        raise InputError(
            f"{path}: its tensors do not fit the network '{named.network}' of base width "
            f"{named.base_width} that its metadata names ({'; '.join(reasons)}); train again with this version"
        )
