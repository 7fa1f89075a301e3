"""Draw photographs of real lesions with the true and the predicted outline, for the README:

    python tools/lesion_picture.py CHECKOUT [--split test] [--count 6] [--seed 0]

CHECKOUT is a clone in which the pipeline has run on CC-0 photographs. Those shown are drawn at random from the split,
not selected by hand. Writes docs/pictures/predictions.jpg and predictions.md with ids, scores and attribution.
"""

import argparse
import csv
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from lesionseg.images.decoding import read_rgb  # noqa: E402
from lesionseg.images.masks import read_mask  # noqa: E402
from lesionseg.inference.outline import outlined  # noqa: E402

FOLDER = REPOSITORY / "docs/pictures"
SIDE, GAP, COLUMNS = 256, 6, 3  # pixels, pixels, photographs
TEXT = """\
# predictions.jpg

{count} of the {all} photographs of the {split} split, drawn at random (`--seed {seed}`), none chosen. **Blue: the true
outline. Orange: the predicted one.** The network: [results.md](../results.md), commit {commit} of this repository;
it was not trained on these photographs.

From left to right, top to bottom, with Dice and IoU of each image:

{rows}

Photographs: ISIC Archive, training set of ISIC 2017 Part 1, a subset of ISIC 2018 Task 1, CC-0; Codella et al. 2018
(arXiv 1710.05006 and 1902.03368), Tschandl et al. 2018 (doi 10.1038/sdata.2018.161). Shown at 256×256, their
proportions given up.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = given.checkout / "data"
    predicted = np.load(data / "evaluation/predicted.npy", mmap_mode="r")
    place = {row["id"]: number for number, row in enumerate(_rows(data / "evaluation/samples.csv"))}
    scores = {row["id"]: row for row in _rows(given.checkout / "plots/per_image.csv") if row["split"] == given.split}
    files = {row["id"]: row for row in _rows(data / "raw/manifest.csv")}
    drawn = random.Random(given.seed).sample(sorted(scores), given.count)
    panels, lines = [], []
    for name in drawn:
        image, _ = read_rgb(data / "raw" / files[name]["image"])
        truth = read_mask(data / "raw" / files[name]["mask"])
        panels.append(outlined(image, {"truth": truth, "predicted": np.array(predicted[place[name]])}, (SIDE, SIDE)))
        lines.append(f"- {name}: Dice {float(scores[name]['dice']):.3f}, IoU {float(scores[name]['iou']):.3f}")
    FOLDER.mkdir(exist_ok=True)
    Image.fromarray(_sheet(panels)).save(FOLDER / "predictions.jpg", quality=88, optimize=True)
    commit = subprocess.run(
        ["git", "-C", str(given.checkout), "rev-parse", "--short=9", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    text = TEXT.format(rows="\n".join(lines), all=len(scores), commit=commit, **vars(given))
    (FOLDER / "predictions.md").write_text(text, encoding="utf-8", newline="\n")
    return 0


def _sheet(panels: list[np.ndarray]) -> np.ndarray:
    """The panels side by side on white, COLUMNS in a row."""
    rows = -(-len(panels) // COLUMNS)
    sheet = np.full((rows * (SIDE + GAP) - GAP, COLUMNS * (SIDE + GAP) - GAP, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        top, left = (number // COLUMNS) * (SIDE + GAP), (number % COLUMNS) * (SIDE + GAP)
        sheet[top : top + SIDE, left : left + SIDE] = panel
    return sheet


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
