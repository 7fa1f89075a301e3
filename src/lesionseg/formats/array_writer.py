"""A .npy file written row by row, in bounded memory."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class ArrayWriter:
    """Writes a uint8 .npy file row by row, so that memory holds one row, however long the array.

    The number of rows need not be known: the header is written on leaving the context. Plain writes rather than a
    memory map, so that a full disk is an OSError and not a SIGBUS that kills the process.

        with ArrayWriter("masks.npy", (256, 256)) as writer:
            writer.append(mask)
    """

    def __init__(self, path: str | Path, row_shape: Sequence[int]):
        self.path = Path(path)
        self.row_shape = tuple(row_shape)
        self.count = 0

    def __enter__(self) -> "ArrayWriter":
        self._file = open(self.path, "w+b")
        self._write_header()
        self._start = self._file.tell()
        return self

    def __exit__(self, kind, value, traceback) -> None:
        try:
            if kind is None:
                self._write_header()
        finally:
            self._file.close()

    def append(self, row: np.ndarray) -> None:
        """Write one row: uint8 of `row_shape`; another dtype or shape is a ValueError."""
        if row.dtype != np.uint8 or row.shape != self.row_shape:
            raise ValueError(f"{self.path}: a row is {row.dtype} {row.shape}, expected uint8 {self.row_shape}")
        self._file.write(np.ascontiguousarray(row).data)
        self.count += 1

    def row(self, row: int) -> np.ndarray:
        """Read back a row that was written."""
        size = int(np.prod(self.row_shape))
        self._file.seek(self._start + row * size)
        content = self._file.read(size)
        self._file.seek(0, 2)
        return np.frombuffer(content, np.uint8).reshape(self.row_shape)

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows (strictly increasing), moving each up in place, one at a time."""
        if any(left >= right for left, right in itertools.pairwise(rows)):
            raise ValueError("rows to keep must be strictly increasing")
        size = int(np.prod(self.row_shape))
        for target, source in enumerate(rows):
            if target != source:
                self._file.seek(self._start + source * size)
                row = self._file.read(size)
                self._file.seek(self._start + target * size)
                self._file.write(row)
        self._file.truncate(self._start + len(rows) * size)
        self._file.seek(0, 2)
        self.count = len(rows)

    def _write_header(self) -> None:
        # NumPy pads the header so that the first dimension can grow in place: its length is fixed.
        self._file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
