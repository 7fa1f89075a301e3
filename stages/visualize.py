"""Draw the results of the evaluation: galleries, charts and a report page under plots/. The model is not run."""

from pathlib import Path
from typing import Annotated

import checkout  # noqa: F401

from lesionseg.common.files import atomic, replaced
from lesionseg.common.parameters import Field, Group, load, one_of
from lesionseg.common.stage import run_stage
from lesionseg.formats.processed import open_folders
from lesionseg.images.withheld import withhold
from lesionseg.visualize import gallery
from lesionseg.visualize.charts import charts
from lesionseg.visualize.image_file import FORMATS, file_bytes, png_bytes
from lesionseg.visualize.report import render_page
from lesionseg.visualize.results import read_json, read_predictions, read_results

PROCESSED, HELD_OUT, SUMMARY = Path("data/processed"), Path("data/held_out"), Path("data/summary")
EVALUATION, MODEL, PLOTS = Path("data/evaluation"), Path("models/trained"), Path("plots")


class Parameters(Group):
    examples: int = Field(ge=1, le=gallery.MOST)
    seed: int = Field(ge=0)
    ids: str | None = Field(min_length=1)
    format: Annotated[str, one_of(FORMATS)]
    pictures_in_git: bool

    def named(self) -> list[str]:
        """The ids to draw, each once, in the order given."""
        words = (self.ids or "").split("," if "," in (self.ids or "") else None)
        return list(dict.fromkeys(word.strip() for word in words if word.strip()))


def main() -> None:
    parameters = load("visualize", Parameters)
    results = read_results(EVALUATION, PLOTS, MODEL)
    data = read_json(SUMMARY / "summary.json")
    both = open_folders(PROCESSED, HELD_OUT)
    predictions = read_predictions(EVALUATION, len(both.samples), both.images.shape[1:3])

    galleries = list(
        gallery.galleries(results, predictions, both, parameters.examples, parameters.seed, parameters.named())
    )
    drawn = list(charts(results))
    page = render_page(results, galleries, drawn, data)

    kind = parameters.format
    with replaced(PLOTS / "charts") as folder:
        for chart in drawn:
            (folder / f"{chart.name}.{kind}").write_bytes(file_bytes(chart.figure, kind))
    with replaced(PLOTS / "galleries") as folder:
        for shown in galleries:
            picture = gallery.draw(shown, gallery.PRINT)
            (folder / f"{shown.split}_{shown.kind}.{kind}").write_bytes(file_bytes(picture, kind, None))
    if parameters.pictures_in_git:
        write(PLOTS / "gallery.png", png_bytes(gallery.draw(gallery.overview(galleries)), 256, gallery.VIRIDIS))
    else:
        withhold(PLOTS / "gallery.png", "visualize.pictures_in_git")
    write(PLOTS / "report.html", page.encode())


def write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    run_stage("visualize", main)
