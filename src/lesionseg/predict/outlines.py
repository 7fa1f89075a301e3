"""Outlines for other programs: a GeoJSON per photograph, as QuPath imports it, and one COCO JSON for all."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lesionseg.common.files import atomic
from lesionseg.common.text import printable
from lesionseg.inference.outline import PREDICTION, hex_to_rgb
from lesionseg.predict.rings import mask_from_rings, polygons

CLASS = "lesion"


class Outlined(NamedTuple):
    """A photograph whose outlines have been written, for the COCO file."""

    image: str
    width: int  # pixels
    height: int
    outlines: Path  # its GeoJSON


def write_geojson(path: Path, mask: np.ndarray) -> None:
    """Write the components of a mask, uint8 (H, W), as a FeatureCollection: one polygon with holes per component.

    Rings are closed, as GeoJSON requires, and coordinates are pixels of the upright photograph, as in QuPath.
    """
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in (one.outer, *one.holes)]},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": CLASS, "color": list(hex_to_rgb(PREDICTION))},
            },
        }
        for one in polygons(mask)
    ]
    with atomic(path) as temporary:
        temporary.write_text(_json({"type": "FeatureCollection", "features": features}) + "\n", encoding="utf-8")


def write_coco(path: Path, photographs: Iterable[Outlined]) -> None:
    """Write the outlines of all photographs, read from their GeoJSON files, as one COCO file.

    A component is an annotation; one with holes, which COCO polygons cannot express, is run-length encoded. Memory
    holds one photograph at a time.
    """
    photographs = list(photographs)
    images = [
        {"id": number, "file_name": printable(one.image), "width": one.width, "height": one.height}
        for number, one in enumerate(photographs, start=1)
    ]
    head = {"images": images, "categories": [{"id": 1, "name": CLASS, "supercategory": "skin"}]}
    annotation = 0
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(_json(head)[:-1] + ',"annotations":[')
        for number, photograph in enumerate(photographs, start=1):
            for entry in _annotations(photograph):
                annotation += 1
                file.write(",\n" if annotation > 1 else "\n")
                file.write(_json({"id": annotation, "image_id": number, "category_id": 1, "iscrowd": 0} | entry))
        file.write("\n]}\n")


def _annotations(photograph: Outlined) -> Iterator[dict]:
    for feature in json.loads(photograph.outlines.read_text(encoding="utf-8"))["features"]:
        rings = [np.array(ring[:-1]) for ring in feature["geometry"]["coordinates"]]
        (left, top), (right, bottom) = rings[0].min(0).tolist(), rings[0].max(0).tolist()
        yield {
            "segmentation": [rings[0].ravel().tolist()] if len(rings) == 1 else _run_lengths(rings, photograph),
            "area": sum(map(_signed_area, rings)),
            "bbox": [left, top, right - left, bottom - top],
        }


def _run_lengths(rings: list[np.ndarray], photograph: Outlined) -> dict:
    """COCO's uncompressed form: the lengths of the runs of 0, 1, 0, …, column by column."""
    pixels = mask_from_rings(rings, (photograph.height, photograph.width)).ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    lengths = np.diff([0, *ends, len(pixels)]).tolist()
    return {"size": [photograph.height, photograph.width], "counts": [0, *lengths] if pixels[0] else lengths}


def _signed_area(ring: np.ndarray) -> int:
    """In pixels; positive if clockwise as seen in the picture, so that a hole subtracts from its outer ring."""
    x, y = ring.T.astype(np.int64)
    return int(x @ np.roll(y, -1) - y @ np.roll(x, -1)) // 2


def _closed(ring: np.ndarray) -> list[list[int]]:
    return [*ring.tolist(), ring[0].tolist()]


def _json(content: dict) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
