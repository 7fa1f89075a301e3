"""The safetensors file that train and evaluate write: opened, and its metadata checked, without torch.

`networks.weights` writes it and reads the tensors.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from lesionseg.common.errors import InputError

TRAINED_FILE, MODEL_FILE = "weights.safetensors", "model.safetensors"  # in the folders of train and of evaluate
FORMAT = "lesionseg"  # the header's entry that holds our metadata, as JSON
LONGEST_HEADER = 8 << 20  # bytes; 64 networks of each kind have less
MOST_MEMBERS = 64  # of an ensemble
Metadata = dict[str, Any]  # what JSON gives back


@contextmanager
def opened(path: Path, framework: Literal["pt", "np"]) -> Iterator[tuple[safe_open, Metadata]]:
    """Give the open file, whose tensors come as torch's or NumPy's, and the metadata it was saved with.

    The metadata has `network` (str), `base_width` (int) and, where given, `members` (int, 1 to 64). Raises InputError
    where the file is missing, is no safetensors file, also if that shows as tensors are read, or has other metadata.
    """
    try:
        _require_short_header(path)
        with safe_open(path, framework) as file:
            yield file, _metadata(path, file.metadata() or {})
    except FileNotFoundError:
        raise InputError(f"{path}: not found; train first: `dvc repro train`, or `dvc pull` it") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); train again or `dvc pull` it") from None


def read_metadata(path: Path) -> Metadata:
    """The metadata of a weights file; no tensor is read. Raises InputError as `opened` does."""
    with opened(path, "np") as (_, metadata):
        return metadata


def shortened(names: Sequence[str]) -> str:
    """The first names of a list from a file that may be a stranger's, safe to print, and how many more there are."""
    shown = ", ".join(name[:100] if name.isprintable() else ascii(name[:100]) for name in names[:3])
    return f"{shown}, … and {len(names) - 3} more" if len(names) > 3 else shown


def _require_short_header(path: Path) -> None:
    """safetensors itself accepts 100 MB of JSON, which take gigabytes of memory."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER and length < path.stat().st_size:  # a length beyond the file is safetensors' to refuse
        raise InputError(f"{path}: found a header of {length} bytes, expected at most {LONGEST_HEADER}; train again")


def _metadata(path: Path, header: dict[str, str]) -> Metadata:
    if FORMAT not in header:
        raise InputError(
            f"{path}: its metadata has {shortened(sorted(header)) or 'nothing'}, expected {FORMAT!r}; is it from the "
            "train stage?"
        )
    try:
        metadata = json.loads(header[FORMAT])
        members = metadata.get("members", 1)
        whole = isinstance(metadata["network"], str) and type(metadata["base_width"]) is type(members) is int
        whole = whole and 1 <= members <= MOST_MEMBERS
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(
            f"{path}: its metadata is {header[FORMAT][:200]!r}, expected JSON with network and base_width; train again"
        )
    return metadata
