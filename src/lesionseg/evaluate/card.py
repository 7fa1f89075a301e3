"""MODEL_CARD.md: what a model is, what it was trained on and how well it does, in the form that model hubs read.

The stage that evaluates the model writes it beside the model, so that scores and model always belong to the same run.
The text is in card.md.j2; what it says about the data is chosen here. Same evaluation, same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import yaml

from lesionseg.common.files import atomic
from lesionseg.common.text import markdown, printable
from lesionseg.evaluate.worst import Worst
from lesionseg.formats.manifest import Pair
from lesionseg.formats.processed import TRAINED, Sample
from lesionseg.formats.weights_file import Metadata
from lesionseg.inference.settings import Settings

NAME, PICTURE = "MODEL_CARD.md", "worst.png"
TAGS = ("dermoscopy", "skin-lesion", "semantic-segmentation", "safetensors")
LONGEST_NOTICE = 4000  # characters of a licence text to quote


@dataclass(frozen=True)
class Source:
    """What the card says about a source of data; sources are named as in manifest.csv."""

    title: str
    licence: str
    limits: str  # what a network cannot learn from it
    open: bool = True  # whether its pictures and ids may be published
    attribution: tuple[str, ...] = ()


SOURCES = {
    "synthetic": Source(
        "synthetic photographs, drawn by this project's seeded generator",
        "MIT, as the code that draws them",
        "No picture shows a person. Scores on drawn lesions say that the pipeline works, and nothing about patients.",
    ),
    "isic2018": Source(
        "ISIC 2018 Challenge, Task 1: lesion boundary segmentation",
        "CC-0 by the challenge's page, which asks for attribution",
        "Dermoscopic photographs from specialised clinics, nearly all of light skin: dark skin is hardly "
        "present, and photographs from ordinary cameras and phones are not.",
        attribution=(
            "P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of multi-source "
            "dermatoscopic images of common pigmented skin lesions. Scientific Data 5, 180161 (2018). "
            "doi 10.1038/sdata.2018.161",
            "N. Codella et al.: Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by the "
            "International Skin Imaging Collaboration (ISIC). arXiv 1902.03368",
        ),
    ),
}
OWN = Source(
    "the user's own data",
    "that of the data; the pipeline does not know it",
    "The pipeline does not know which cameras, patients and skin tones it covers.",
    open=False,
)
SPLITS = {  # split -> title, what it was used for
    "train": ("training", "the weights were fitted to it"),
    "val": ("validation", "monitored during training; never fitted"),
    "test": ("test", "held out at random; no choice was made on it"),
    "official_validation": ("ISIC 2018 official validation set", "only evaluated"),
    "official_test": ("ISIC 2018 official test set", "only evaluated"),
    "external": ("external set", "only evaluated"),
}
METRICS = (  # section, name, label, decimals, its type on model hubs
    ("per_image", "dice", "Dice, mean over images", 4, "dice"),
    ("per_image", "iou", "IoU (Jaccard), mean over images", 4, "mean_iou"),
    ("pooled", "dice", "Dice, pooled over all pixels", 4, "dice_pooled"),
    ("pooled", "iou", "IoU (Jaccard), pooled over all pixels", 4, "iou_pooled"),
    ("pooled", "precision", "Precision, pooled", 4, "precision"),
    ("pooled", "recall", "Recall (sensitivity), pooled", 4, "recall"),
    ("official", "threshold_jaccard", "Threshold Jaccard (ISIC 2018 score)", 4, "threshold_jaccard"),
    ("official", "failure_rate", "Share of images with a Jaccard below 0.65", 4, "failure_rate"),
    ("boundary", "hd95", "HD95 at native size, pixels", 1, "hd95"),
)


@dataclass(frozen=True)
class Evaluated:
    """Everything that the card is made from."""

    trained: Metadata  # of the weights
    parameters: int  # their number, over all members
    settings: Settings
    splits: Mapping[str, Mapping]  # as in detail.json
    ran: Mapping[str, str | None]  # device and number formats
    versions: Mapping[str, str]  # of the packages that computed the evaluation
    samples: Sequence[Sample]
    pairs: Sequence[Pair]
    notices: Mapping[str, str]  # licence and attribution texts that came with the data, by file name
    members: Mapping[str, Mapping[str, Mapping[str, float]]] | None  # as in members.json
    worst: Mapping[str, Sequence[Worst]]  # by split

    def shown(self) -> dict[str, Sequence[Worst]]:
        """The worst images of the splits whose photographs may be published; a user's own are not."""
        return {
            split: row
            for split, row in self.worst.items()
            if all(source(name).open for name in _sources_of(split, self.samples, self.pairs))
        }


def write(folder: Path, evaluated: Evaluated) -> None:
    """Write the card to `folder`."""
    with atomic(folder / NAME) as temporary:
        temporary.write_text(render_card(evaluated), encoding="utf-8")


def source(name: str) -> Source:
    """What the card says about the source called `name`."""
    return SOURCES.get(name, OWN)


def render_card(evaluated: Evaluated) -> str:
    """The card as text."""
    template = resources.files(__package__).joinpath("card.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "text": lambda value: markdown(str(value)),
        "plain": lambda value: printable(str(value)),
        "as_yaml": as_yaml,
        "sentence": lambda value: value[:1].upper() + value[1:],
    }
    names = sorted({pair.source for pair in evaluated.pairs})
    trained_on = sorted({name for split in TRAINED for name in _sources_of(split, evaluated.samples, evaluated.pairs)})
    return environment.from_string(template).render(
        each=evaluated,
        head=yaml.safe_dump(_head(evaluated, trained_on), sort_keys=False, allow_unicode=True).rstrip(),
        sources={name: source(name) for name in names},
        own=any(not source(name).open for name in names),
        notices={printable(name): _quoted(text) for name, text in evaluated.notices.items()},
        data=[_split(split, evaluated) for split in SPLITS if any(one.split == split for one in evaluated.samples)],
        shared=_groups_on_both_sides(evaluated.samples),
        titles={split: title for split, (title, _) in SPLITS.items()},
        recipe={name[6:]: value for name, value in evaluated.trained.items() if name.startswith("train.")},
        metrics=METRICS,
        score=score,
        worst=evaluated.shown(),
        breakdowns=lambda detail: {name[3:]: part for name, part in detail.items() if name.startswith("by_")},
        picture=PICTURE,
    )


def score(numbers: Mapping, name: str, decimals: int) -> str:
    """A score, with its 95 % interval if it has one."""
    value, low, high = (numbers.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    between = "" if low is None else f" ({low:.{decimals}f} to {high:.{decimals}f})"
    return f"{value:.{decimals}f}{between}"


def as_yaml(value: object) -> str:
    """The value of a parameter as params.yaml writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _head(evaluated: Evaluated, trained_on: Sequence[str]) -> dict:
    """The YAML block that model hubs index."""
    licence = {"license": "mit"}
    if not all(source(name).open for name in trained_on):
        licence = {"license": "other", "license_name": "that-of-the-training-data"}
    results = [
        {
            "task": {"type": "image-segmentation", "name": "Skin-lesion segmentation"},
            "dataset": {
                "type": "-".join(_sources_of(split, evaluated.samples, evaluated.pairs)),
                "name": f"{SPLITS[split][0]}, {detail['images']} images",
                "split": split,
            },
            "metrics": [
                {"type": kind, "name": label, "value": round(detail[section][name], decimals)}
                for section, name, label, decimals, kind in METRICS
                if detail[section][name] is not None
            ],
        }
        for split, detail in evaluated.splits.items()
    ]
    return {
        **licence,
        "library_name": "lesionseg",
        "pipeline_tag": "image-segmentation",
        "tags": [*TAGS, str(evaluated.trained["network"])],
        "metrics": list(dict.fromkeys(kind for *_, kind in METRICS)),
        "model-index": [{"name": "lesion-segmentation", "results": results}],
    }


def _split(split: str, evaluated: Evaluated) -> dict:
    """A row of the data table."""
    samples = [one for one in evaluated.samples if one.split == split]
    title, purpose = SPLITS[split]
    sources = _sources_of(split, evaluated.samples, evaluated.pairs)
    return {
        "title": title,
        "purpose": purpose,
        "images": len(samples),
        "groups": len({one.group for one in samples}),
        "sources": ", ".join(sources),
        "lesion": sum(one.lesion_fraction for one in samples) / len(samples),
    }


def _sources_of(split: str, samples: Sequence[Sample], pairs: Sequence[Pair]) -> list[str]:
    ids = {one.id for one in samples if one.split == split}
    return sorted({pair.source for pair in pairs if pair.id in ids})


def _groups_on_both_sides(samples: Sequence[Sample]) -> int:
    """The number of groups with both an image that was trained on and one that was evaluated."""
    fitted = {one.group for one in samples if one.split == "train"}
    return len(fitted & {one.group for one in samples if one.split != "train"})


def _quoted(text: str) -> str:
    """A stranger's text as a code block, so that none of it is read as Markdown."""
    cut = text if len(text) <= LONGEST_NOTICE else text[:LONGEST_NOTICE] + "\n…"
    return "\n".join(f"    {printable(line)}".rstrip() for line in cut.splitlines())
