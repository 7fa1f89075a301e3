"""Draw what the evaluation found: galleries and charts under plots/, and a report page. The model is not run."""

from pathlib import Path

import checkout  # noqa: F401

from lesionseg.common.files import atomic
from lesionseg.common.parameters import Field, Group, load
from lesionseg.common.stage import run_stage
from lesionseg.formats.processed import open_folders
from lesionseg.visualize import gallery
from lesionseg.visualize.charts import charts
from lesionseg.visualize.image_file import png_bytes
from lesionseg.visualize.report import render
from lesionseg.visualize.results import read_json, read_predictions, read_results

PROCESSED, HELD_OUT, SUMMARY = Path("data/processed"), Path("data/held_out"), Path("data/summary")
EVALUATION, MODEL, PLOTS = Path("data/evaluation"), Path("models/segmentation"), Path("plots")


class Parameters(Group):
    examples: int = Field(ge=1, le=gallery.MOST)
    seed: int = Field(ge=0)


def main() -> None:
    parameters = load("visualize", Parameters)
    results = read_results(EVALUATION, PLOTS, MODEL)
    data = read_json(SUMMARY / "summary.json")
    both = open_folders(PROCESSED, HELD_OUT)
    predictions = read_predictions(EVALUATION, len(both.samples), both.images.shape[1:3])

    galleries = list(
        gallery.galleries(results, predictions, both.images, both.masks, parameters.examples, parameters.seed)
    )
    drawn = [(chart, png_bytes(chart.figure)) for chart in charts(results)]
    page = render(results, galleries, drawn, {"Network and training": results.network, "Data": data})

    first = [shown for shown in galleries if shown.split == galleries[0].split]  # git holds one split, the report all
    pictures = {f"gallery_{shown.kind}": png_bytes(gallery.draw(shown), 256, gallery.VIRIDIS) for shown in first}
    pictures |= {chart.name: content for chart, content in drawn}
    for name, content in pictures.items():
        write(PLOTS / f"{name}.png", content)
    write(PLOTS / "report.html", page.encode())


def write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    run_stage("visualize", main)
