"""Trained weights as one safetensors file that also tells which network they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic
from lesionseg.networks import build

FORMAT = "lesionseg"  # marks a file as ours
MOST_MEMBERS = 64  # of an ensemble
Metadata = dict[str, str | int | float | bool | None]


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

    Raises InputError where the file is missing, is no safetensors file, was not written by `save`, or does
    not fit the network its metadata names.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; train first: `dvc repro train`, or `dvc pull` it") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); train again or `dvc pull` it") from None
    metadata = _metadata(path, header)
    name, base_width = metadata["network"], metadata["base_width"]
    try:
        network = build(name, base_width, metadata.get("members", 1))
        network.load_state_dict(state)
    except InputError as error:
        raise InputError(
            f"{path}: {problem}; was it written by another version?" for problem in error.problems
        ) from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: its tensors do not fit the network '{name}' of base width {base_width} that its metadata "
            f"names ({reason}); train again with this version"
        ) from None
    return network.eval().to(device), metadata


def _metadata(path: Path, header: dict[str, str]) -> Metadata:
    """What `save` was given, from the file's header."""
    if FORMAT not in header:
        raise InputError(
            f"{path}: its metadata has {sorted(header) or 'nothing'}, expected {FORMAT!r}; is it from the train stage?"
        )
    try:
        metadata = json.loads(header[FORMAT])
        whole = isinstance(metadata["network"], str) and isinstance(metadata["base_width"], int)
        whole = whole and metadata.get("members", 1) in range(1, MOST_MEMBERS + 1)
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        raise InputError(
            f"{path}: its metadata is {header[FORMAT][:200]!r}, expected JSON with network and base_width; train again"
        )
    return metadata
