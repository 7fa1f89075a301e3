"""Draw what the evaluation found: galleries and charts as PNG under plots/. The model is not run."""

import checkout  # noqa: F401  isort: skip

from lesionseg import figures, gallery
from lesionseg.arrays import open_arrays
from lesionseg.errors import run_stage
from lesionseg.parameters import Field, Group, load
from lesionseg.png import save_png
from lesionseg.results import read_json, read_predictions, read_table


class Parameters(Group):
    examples: int = Field(ge=1, le=16)
    seed: int = Field(ge=0)


def main() -> None:
    parameters = load("visualize", Parameters)
    images, masks = open_arrays("data/processed")
    predictions = read_predictions("data/predictions", len(images), images.shape[1:3])
    scores = read_table("plots/per_image.csv", ("id", "split", "dice", "iou"))
    evaluation = read_json("metrics/evaluation.json")
    history = read_table("models/unet/history.csv", ("epoch",))

    split = predictions.splits[0]
    place = {id: index for index, id in enumerate(predictions.ids)}
    scores = scores.where("split", split)
    ids, dice, iou = scores.texts("id"), scores.numbers("dice"), scores.numbers("iou")
    for kind in gallery.KINDS:
        examples = [
            gallery.Example(
                ids[index],
                f"Dice {dice[index]:.3f} · IoU {iou[index]:.3f}",
                images[predictions.rows[place[ids[index]]]],
                masks[predictions.rows[place[ids[index]]]],
                predictions.predicted[place[ids[index]]],
                predictions.probabilities[place[ids[index]]],
            )
            for index in gallery.choose(kind, ids, dice, parameters.examples, parameters.seed)
        ]
        title = f"{kind.capitalize()} predictions · split {split}, {len(ids)} images"
        save_png(gallery.draw(title, examples), f"plots/gallery_{kind}.png")
    curves = figures.training_curves({name: history.numbers(name) for name in history.columns})
    save_png(curves, "plots/training_curves.png", colours=64)
    confusion = figures.confusion_matrix({name: part["confusion"] for name, part in evaluation.items()})
    save_png(confusion, "plots/confusion_matrix.png", colours=64)


if __name__ == "__main__":
    run_stage("visualize", main)
