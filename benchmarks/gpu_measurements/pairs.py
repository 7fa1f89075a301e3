"""The processed arrays to measure on: given, made from a folder of pairs, or drawn."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_measurements.scale import Scale
from lesionseg.common.parallel import cores
from lesionseg.download import synthetic
from lesionseg.download.folder import fetch, find
from lesionseg.preprocess.dataset import process

SEED = 0  # of the subset and the split, as in params.yaml


def processed(data: Path | None, pairs: Path | None, scale: Scale, stack: ExitStack) -> dict[str, Path]:
    """Return the processed directories by name, the largest set last.

    `data` is one made by the pipeline. `pairs`, a directory of images and masks, gives two sets as `download.limit`
    and the preprocess stage make them: the published number of pairs, and all. With neither, images are drawn. What
    is made lies in a temporary directory that `stack` removes.
    """
    if data is not None:
        return {str(data): data}
    made = Path(stack.enter_context(TemporaryDirectory(prefix="lesionseg-")))
    if pairs is None:
        return {"synthetic": _process(made, "synthetic", scale, None, None)}
    there = len(find(pairs))
    limits = [scale.recipe_pairs] if scale.recipe_pairs is not None and scale.recipe_pairs < there else []
    return {f"{limit} pairs": _process(made, str(limit), scale, pairs, limit) for limit in [*limits, there]}


def _process(made: Path, name: str, scale: Scale, pairs: Path | None, limit: int | None) -> Path:
    raw, arrays = made / f"raw-{name}", made / name
    raw.mkdir()
    arrays.mkdir()
    if pairs is None:
        chosen = synthetic.fetch(raw, count=scale.synthetic_images, limit=None, seed=SEED, workers=cores())
    else:
        chosen = fetch(raw, folder=pairs, limit=limit, seed=SEED, workers=cores())
    process(
        raw,
        chosen,
        arrays,
        size=scale.side,
        validation_fraction=0.2,
        seed=SEED,
        drop_invalid=False,
        duplicate_distance=64,
        workers=cores(),
    )
    return arrays
