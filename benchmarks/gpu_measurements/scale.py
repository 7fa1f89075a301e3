"""How large everything is: as published, or just large enough to go through every line."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    network: str = "unet"
    base_width: int = 64
    side: int = 256  # of the images
    batches: tuple[int, ...] = (8, 32, 128)
    seconds: float = 1.5  # that one measurement of speed repeats its work for
    matrix_side: int = 8192  # large enough to fill a card
    copied_bytes: int = 2 << 30  # far beyond its caches
    synthetic_images: int = 500  # drawn where no data is given
    epochs: int = 10  # of the recipe
    recipe_batch: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe_pairs: int | None = 500  # the smaller of the two sets the recipe runs on; the other is all
    predicted_images: int = 256


SMOKE = Scale(
    base_width=2,
    side=32,
    batches=(2, 4),
    seconds=0.01,
    matrix_side=64,
    copied_bytes=1 << 16,
    synthetic_images=6,
    epochs=2,
    recipe_batch=2,
    seeds=(0, 1),
    recipe_pairs=5,
    predicted_images=4,
)
