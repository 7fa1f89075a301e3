"""Images that show the same picture: byte-identical files, and near-duplicates by perceptual hash.

The hash is a pHash of 255 bits: the signs of the 16×16 lowest DCT coefficients, without the mean, of a 32×32 grey
thumbnail (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", with more bits).
Signs do not change with brightness or contrast, and hardly with resizing or JPEG compression. The usual 64 bits are
too few here: dermoscopy images look alike, a dark blob in the middle of bright skin, and different lesions come within
3 bits of each other while real near-duplicates differ by up to 11. With 255 bits, the smallest distance between
different lesions among 1,000 real images was 58.

Every pair within the distance is then confirmed by comparing the thumbnails themselves, each pixel relative to the
mean and deviation around it, so that the fine structure counts and not the blob; at the best of several small shifts,
since a second photograph is never framed exactly alike.

All hashes are compared with all others, exactly, in blocks: a block is one matrix product of signs, whose entries are
255 - 2·(Hamming distance). Banding (multi-index hashing) saves nothing at this radius: a quarter of the bits may
differ, so no band of useful length is sure to agree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 32  # of the thumbnail, pixels
FREQUENCIES = 16  # of the DCT, along each axis
BITS = FREQUENCIES**2 - 1
CONFIRM = 0.68  # correlation of the fine structure; at or above it two pictures are the same
SHIFT = 2  # largest shift tried, in thumbnail pixels
BLOCK = 4096  # hashes compared at a time: 64 MB for the products


@dataclass(frozen=True)
class Match:
    """Two images, by index, that show the same picture."""

    first: int
    second: int
    distance: int  # differing bits of the hash
    correlation: float  # of the fine structure, at the best shift


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> uint8 grey (32, 32), by which images are compared."""
    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """uint8 (N, 32, 32) -> bool (N, 255): signs of the low DCT coefficients. `thumbnails` may be memory-mapped."""
    parts = [np.empty((0, BITS), bool)]
    for start in range(0, len(thumbnails), BLOCK):
        block = np.asarray(thumbnails[start : start + BLOCK], np.float32)
        low = dctn(block, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES]
        parts.append(low.reshape(len(block), -1)[:, 1:] > 0)
    return np.concatenate(parts)


def hash_distance(thumbnails: np.ndarray, first: int, second: int) -> int:
    """The number of differing bits of two images' hashes."""
    left, right = hashes(thumbnails[[first, second]])
    return int(np.count_nonzero(left != right))


def close_pairs(bits: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All i < j whose hashes differ in at most `distance` bits: arrays of i, j and the distance."""
    found = [np.empty((3, 0), np.int64)]
    for top in range(0, len(bits), BLOCK):
        rows = bits[top : top + BLOCK].astype(np.float32) * 2 - 1
        for left in range(top, len(bits), BLOCK):
            columns = bits[left : left + BLOCK].astype(np.float32) * 2 - 1
            agreement = rows @ columns.T  # small whole numbers, exact in float32
            i, j = np.nonzero(agreement >= bits.shape[1] - 2 * distance)
            differing = (bits.shape[1] - agreement[i, j]).astype(np.int64) // 2
            later = i + top < j + left
            found.append(np.stack([i + top, j + left, differing])[:, later])
    first, second, differing = np.concatenate(found, axis=1)
    order = np.lexsort((second, first))
    return first[order], second[order], differing[order]


def near_duplicates(thumbnails: np.ndarray, distance: int, among: np.ndarray | None = None) -> list[Match]:
    """Confirmed near-duplicates among uint8 (N, 32, 32) thumbnails, sorted by their indices.

    `among` are the indices to look at, increasing (None: all).
    """
    bits = hashes(thumbnails)
    among = np.arange(len(bits)) if among is None else among
    first, second, differing = close_pairs(bits[among], distance)
    matches = []
    for start in range(0, len(first), BLOCK):
        part = slice(start, start + BLOCK)
        left, right = among[first[part]], among[second[part]]
        scores = structure_correlation(thumbnails[left], thumbnails[right])
        matches += [
            Match(int(left[at]), int(right[at]), int(differing[start + at]), float(scores[at]))
            for at in np.flatnonzero(scores >= CONFIRM)
        ]
    return matches


def structure_correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Correlation of the fine structure of thumbnails, pair by pair: uint8 (K, 32, 32) twice -> float (K,).

    The highest over shifts of up to 2 pixels each way; 0 where a picture has no structure.
    """
    left, right = structure(left), structure(right)
    best = np.zeros(len(left), np.float32)
    for down in range(-SHIFT, SHIFT + 1):
        for across in range(-SHIFT, SHIFT + 1):
            a = left[:, max(down, 0) : SIDE + min(down, 0), max(across, 0) : SIDE + min(across, 0)]
            b = right[:, max(-down, 0) : SIDE + min(-down, 0), max(-across, 0) : SIDE + min(-across, 0)]
            dot = np.einsum("kij,kij->k", a, b)
            norms = np.einsum("kij,kij->k", a, a) * np.einsum("kij,kij->k", b, b)
            np.maximum(best, dot / np.sqrt(np.maximum(norms, 1e-6)), out=best)
    return best


def structure(thumbnails: np.ndarray) -> np.ndarray:
    """Each pixel relative to the mean and the deviation around it; +4 grey levels keep noise on bare skin small."""
    pixels = np.asarray(thumbnails, np.float32)
    detail = pixels - gaussian_filter(pixels, (0, 1.5, 1.5))
    return detail / (np.sqrt(gaussian_filter(detail * detail, (0, 1.5, 1.5))) + 4)


def identical(digests: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (first index with the digest, later index with the same digest)."""
    seen: dict[str, int] = {}
    return [(seen[digest], index) for index, digest in enumerate(digests) if seen.setdefault(digest, index) != index]


def groups(count: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    """Connected components of `count` images under `links`: int (count,), the smallest index in each image's group."""
    links = np.array(list(links), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    smallest = np.full(count, count)
    np.minimum.at(smallest, label, np.arange(count))
    return smallest[label]
