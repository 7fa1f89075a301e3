"""What one augmented sample costs, for every option: python benchmarks/augmentation.py [side]."""

import sys
import time

import numpy as np

from lesionseg.train.augment import Augmentation, Augmenter

OFF = {"flips": False, "rotations": "none", "scale_shift": "none", "elastic": "none", "colour": "none"}
USUAL = OFF | {"flips": True, "rotations": "right_angles"}
OPTIONS = {
    "nothing": OFF,
    "flips and right angles (default)": USUAL,
    "any rotation": OFF | {"rotations": "any"},
    "scale_shift": OFF | {"scale_shift": "strong"},
    "elastic": OFF | {"elastic": "strong"},
    "colour": OFF | {"colour": "strong"},
    "all": USUAL | {"rotations": "any", "scale_shift": "strong", "elastic": "strong", "colour": "strong"},
}
REPETITIONS = 200


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = (image[..., 0] > 127).astype(np.uint8)
    print(f"milliseconds a sample of {side}x{side}, median of {REPETITIONS}, on one core")
    for name, options in OPTIONS.items():
        augmentation = Augmentation(**{f"augment_{option}": value for option, value in options.items()})
        augment = Augmenter(0, side, augmentation)
        durations = []
        for index in range(REPETITIONS):
            start = time.perf_counter()
            augment(image, mask, epoch=1, sample=index)
            durations.append(time.perf_counter() - start)
        print(f"{name:34} {1000 * np.median(durations):8.3f}")


if __name__ == "__main__":
    main()
