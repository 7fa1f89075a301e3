"""Errors that stop a training run, with the parameters to change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lesionseg.common.errors import InputError
from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.loading import Data, order
from lesionseg.train.progress import Tally
from lesionseg.train.recipe import Recipe

NAMED = 10  # images listed in a message


def require_finite(tally: Tally, epoch: int, data: Data, recipe: Recipe, checkpoints: Checkpoints | None) -> None:
    """Stop where a training loss of this epoch is NaN or infinite."""
    bad = tally.not_finite()
    if not bad:
        return
    step = bad[0] // recipe.batch_size  # the first such step: all after it carry its weights
    rows = order(recipe.seed, epoch, data.train_rows)
    images = _names(data, [rows[position] for position in bad if position // recipe.batch_size == step])
    good = f"{checkpoints.path} is the last good one" if checkpoints and checkpoints.path.exists() else "none yet"
    raise InputError(
        f"training stopped: the loss is {tally.losses[bad[0]].item()} in epoch {epoch}, step {step + 1} (images "
        f"{images}); lower train.learning_rate, set train.gradient_clip or train.precision=fp32, or look at the "
        f"images; checkpoint: {good}"
    )


def require_finite_validation(tally: Tally, data: Data) -> None:
    """Stop where a validation loss is NaN or infinite."""
    if bad := tally.not_finite():
        images = _names(data, [data.val_rows[position] for position in bad])
        raise InputError(
            f"training stopped: the validation loss is not finite for {len(bad)} images ({images}); lower "
            "train.learning_rate or set train.precision=fp32"
        )


@contextmanager
def explain_errors(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Turn torch's errors about memory and about a batch too small for batch norm into InputErrors."""
    share = f"params.yaml: train.batch_size={recipe.batch_size} with train.accumulation={recipe.accumulation}"
    smaller = "Raise train.accumulation (the batch in more parts), or lower train.batch_size or train.base_width"
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise InputError(f"{share} does not fit into the memory of {device}: {reason}. {smaller}") from None
    except RuntimeError as error:
        if "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        raise InputError(f"{share} does not fit into the machine's memory. {smaller}") from None
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"{share}: batch norm needs more than one value a channel, and at the bottom of the network a part of one "
            "small image has a single one; raise preprocess.image_size or train.batch_size"
        ) from None


def _names(data: Data, rows: Sequence[int]) -> str:
    more = f", … and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(data.ids[row] for row in rows[:NAMED]) + more
