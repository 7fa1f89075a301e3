"""Images that show the same picture zoomed, shifted, turned or mirrored, which a hash of the whole picture misses.

Each image is described by its strongest local features (SIFT, Lowe 2004, doi 10.1023/B:VISI.0000029664.99615.94; square
roots of the normalised histograms as in Arandjelović and Zisserman 2012, doi 10.1109/CVPR.2012.6248018). SIFT does not
change with zoom, shift and rotation. A mirrored feature has the same numbers in another order; of the two orders a
fixed rule selects one, so that mirrored copies have equal features too.

Two images are compared if several of their features fall into the same cells of locality-sensitive hash tables (signs
of fixed random projections), which sorting finds without comparing all pairs; and each image only with the few that
share most cells with it, so that the work grows with the images and not with their pairs. If the features of both then
agree on one zoom, rotation and shift, the narrower picture is compared with that part of the wider one, by the fine
structure of thumbnails in most of nine blocks: equal vignettes, rulers or hairs are not enough.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter

from lesionseg.preprocess.duplicates import SIDE, structure

SIZE = 128  # pixels: side of the square in which features are detected
FEATURES = 32  # of an image, the strongest
WIDE = 64  # pixels of the thumbnail that the narrower picture is cut out of
VALUES = 128  # of a feature
ROW = WIDE * WIDE + FEATURES * (VALUES + 2)  # bytes that describe an image: thumbnail, features, their places

TABLES, BITS = 8, 32  # hash tables, and projections of each
CROWD = 24  # features in a cell, at most; fuller cells hold spots and hairs and are ignored
VOTES = 4  # shared cells that make two images worth comparing
BEST = 10  # an image is compared with this many that share most cells with it
BLOCK = 1024  # images whose cells are computed at a time
ALIKE = 0.9  # least scalar product of two matching features; 1: equal
AGREEING = 4  # features that must agree on a zoom, rotation and shift
TOLERANCE = 4  # pixels of SIZE within which they agree
ZOOM = 2.5  # largest zoom
SKEW = 1.15  # largest stretch of one direction against the other
BLACK = 20  # pixels up to this grey level belong to the frame of the lens; every lesion is lighter
MARGIN = 4  # pixels around the black that count as black too, as its edge is the strongest structure
CONFIRM = 0.7  # correlation of the fine structure; among 3,000 lesions at least 0.75 for one picture, else at most 0.66

_MIRRORED = np.arange(VALUES).reshape(4, 4, 8)[::-1, :, -np.arange(8) % 8].reshape(-1)
_PREFERENCE = np.random.default_rng(0).normal(size=VALUES).astype(np.float32)
_PROJECTIONS = np.random.default_rng(1).normal(size=(VALUES, TABLES * BITS)).astype(np.float32)
_PROJECTIONS -= _PROJECTIONS.mean(0)  # so that what all features have in common does not count


def describe(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> uint8 (ROW,): what `find` compares."""
    grey = Image.fromarray(image).convert("L")
    thumbnail = np.asarray(grey.resize((WIDE, WIDE), Image.Resampling.BILINEAR))
    small = np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    sift = cv2.SIFT_create(contrastThreshold=0.01, edgeThreshold=12)  # type: ignore[attr-defined]  # OpenCV's types lack it
    keypoints, histograms = sift.detectAndCompute(small, None)
    features, places = np.zeros((FEATURES, VALUES), np.uint8), np.zeros((FEATURES, 2), np.uint8)
    if keypoints:
        strength = np.array([keypoint.response for keypoint in keypoints])
        best = np.argsort(-strength, kind="stable")[:FEATURES]
        roots = np.sqrt(histograms[best] / np.maximum(histograms[best].sum(1, keepdims=True), 1))
        mirrored = roots[:, _MIRRORED]
        roots = np.where((roots @ _PREFERENCE < mirrored @ _PREFERENCE)[:, None], mirrored, roots)
        features[: len(best)] = np.rint(roots * 255)
        places[: len(best)] = np.rint([np.array(keypoints[at].pt) * 255 / SIZE for at in best])
    return np.concatenate([thumbnail.reshape(-1), features.reshape(-1), places.reshape(-1)])


def find_other_views(rows: np.ndarray, among: Sequence[int] | np.ndarray) -> list[tuple[int, int, float]]:
    """(first, second, correlation of the fine structure) of images that show the same picture.

    `rows` is uint8 (N, ROW) and may be memory-mapped; `among` are the indices to look at, increasing.
    """
    chosen = np.asarray(among, np.int64)
    found = []
    for first, second in chosen[_candidates(rows, chosen)].tolist():
        correlation = _compare(rows[first], rows[second])
        if correlation >= CONFIRM:
            found.append((first, second, correlation))
    return found


def _candidates(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int (K, 2), increasing: pairs of places in `among` that share many cells, the best few of each image."""
    codes_of, owner_of = [np.empty((0, TABLES), np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(among), BLOCK):
        features = _features(rows[among[start : start + BLOCK]])
        image, number = np.nonzero(features.any(2))
        codes_of.append(_codes(features[image, number]))
        owner_of.append(image + start)
    codes, owner = np.concatenate(codes_of), np.concatenate(owner_of)
    shared = []
    for table in range(TABLES):
        order = np.argsort(codes[:, table], kind="stable")
        cell, image = codes[order, table], owner[order]
        _, number, sizes = np.unique(cell, return_inverse=True, return_counts=True)
        sparse = sizes[number] <= CROWD
        cell, image = cell[sparse], image[sparse]
        for step in range(1, CROWD):
            same = (cell[step:] == cell[:-step]) & (image[step:] != image[:-step])
            shared.append(image[:-step][same] * len(among) + image[step:][same])  # the sort is stable: smaller first
    pairs, votes = np.unique(np.concatenate(shared), return_counts=True)
    pairs, votes = pairs[votes >= VOTES], votes[votes >= VOTES]
    first, second = np.divmod(pairs, max(1, len(among)))
    best = _ranks(first, votes) < BEST
    best |= _ranks(second, votes) < BEST
    return np.stack([first[best], second[best]], axis=1)


def _ranks(image: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The rank of each pair among those of its image, 0 for the most votes: int (K,)."""
    order = np.lexsort((np.arange(len(votes)), -votes, image))
    starts = np.searchsorted(image[order], image[order])
    ranks = np.empty(len(votes), np.int64)
    ranks[order] = np.arange(len(votes)) - starts
    return ranks


def _codes(features: np.ndarray) -> np.ndarray:
    """uint8 (K, VALUES) -> int64 (K, TABLES): the cell of each feature in each table."""
    signs = (features.astype(np.float32) @ _PROJECTIONS > 0).reshape(-1, TABLES, BITS)
    return signs @ (1 << np.arange(BITS, dtype=np.int64))


def _features(rows: np.ndarray) -> np.ndarray:
    """uint8 (…, ROW) -> uint8 (…, FEATURES, VALUES)."""
    return rows[..., WIDE * WIDE : -2 * FEATURES].reshape(*rows.shape[:-1], FEATURES, VALUES)


def _compare(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the narrower picture with its part of the wider one; 0 if the features agree on no part."""
    left, right = (_features(row).astype(np.float32) for row in (first, second))
    products = (left @ right.T) / np.maximum(np.outer(*(np.linalg.norm(side, axis=1) for side in (left, right))), 1)
    best = products.argmax(1)
    matched = np.flatnonzero(products.max(1) >= ALIKE)
    if len(matched) < AGREEING:
        return 0.0
    places = [row[-2 * FEATURES :].reshape(FEATURES, 2).astype(np.float32) for row in (first, second)]
    here, there = places[0][matched], places[1][best[matched]]
    view, agreeing = cv2.estimateAffine2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE * 255 / SIZE)
    if view is None or len(np.unique(here[agreeing[:, 0] > 0], axis=0)) < AGREEING:
        return 0.0
    stretch = np.linalg.svd(view[:, :2], compute_uv=False)
    if stretch[0] > SKEW * stretch[1] or not 1 / ZOOM <= stretch.mean() <= ZOOM:
        return 0.0
    if stretch.mean() > 1:  # the first is the wider one
        first, second, view = second, first, cv2.invertAffineTransform(view)
    return _part(first, second, view)


def _part(narrow: np.ndarray, wide: np.ndarray, view: np.ndarray) -> float:
    """Correlation of a picture with its part of a wider one; `view` (2, 3) maps places, 0 to 255, to the other's."""
    small, large = (row[: WIDE * WIDE].reshape(WIDE, WIDE) for row in (narrow, wide))
    # Places are 0 to 255 from edge to edge; pixel i of n has its centre at (i + 1/2)·255/n.
    to_place = np.array([[255 / SIDE, 0, 127.5 / SIDE], [0, 255 / SIDE, 127.5 / SIDE], [0, 0, 1]])
    to_pixel = np.array([[WIDE / 255, 0, -0.5], [0, WIDE / 255, -0.5], [0, 0, 1]])
    matrix = (to_pixel @ np.vstack([view, [0, 0, 1]]) @ to_place)[:2]
    inverse = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = cv2.warpAffine(large, matrix, (SIDE, SIDE), flags=inverse, borderMode=cv2.BORDER_REPLICATE)
    whole = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return _agreement(whole, part)


def _agreement(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of the fine structure of two uint8 (32, 32) pictures: the median over nine blocks, at the best shift.

    The black frame of a lens is left out; 0 if that leaves less than a third of the picture.
    """
    seen = ~maximum_filter((left <= BLACK) | (right <= BLACK), 2 * MARGIN + 1)
    if seen.mean() < 1 / 3:
        return 0.0
    left, right = structure(np.stack([left, right])) * seen
    usable = _blocks(seen[1:-1, 1:-1]).mean(1) >= 1 / 3
    here = _blocks(left[1:-1, 1:-1])[usable]
    best = (-1.0, 0.0)
    for down in range(3):
        for across in range(3):
            there = _blocks(right[down : SIDE - 2 + down, across : SIDE - 2 + across])[usable]
            dot, first, second = ((a * b).sum(1) for a, b in ((here, there), (here, here), (there, there)))
            whole = dot.sum() / np.sqrt(max(first.sum() * second.sum(), 1e-6))
            best = max(best, (whole, np.median(dot / np.sqrt(np.maximum(first * second, 1e-6)))))
    return float(best[1])


def _blocks(picture: np.ndarray) -> np.ndarray:
    """(30, 30) -> (9, 100)."""
    return picture.reshape(3, 10, 3, 10).swapaxes(1, 2).reshape(9, 100)
