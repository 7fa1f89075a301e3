"""Everything about this project on an NVIDIA card, in one call: what the card can do, and how near training comes.

    python benchmarks/gpu.py --data data/processed          arrays that the preprocess stage made
    python benchmarks/gpu.py --images DIR                   a directory of images and masks
    python benchmarks/gpu.py                                synthetic images

docs/gpu.md says what each part measures and how to read it. It needs torch and the library's own dependencies, not
DVC. Results are written after every measurement to <out>/report.json and report.md: a run that is cut off keeps them.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from gpu_measurements import card, inference, kernels, limits, loop, pairs, recipe, step, suite
from gpu_measurements.report import Missing, Report, Row
from gpu_measurements.scale import SMOKE, Scale
from gpu_measurements.step import Variant
from lesionseg.common.errors import InputError
from lesionseg.common.hardware import choose_device, use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.formats.processed import open_arrays, read_samples
from lesionseg.inference.prediction import VIEWS
from lesionseg.train import precision
from lesionseg.train.loading import Augment, Samples, default_workers

NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def main() -> int:
    arguments = read_arguments()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(
            f"gpu: error: torch {torch.__version__} finds no NVIDIA card, and a card is what this measures",
            file=sys.stderr,
        )
        return 1
    try:
        use_deterministic_algorithms(True)
        hardware = choose_device(arguments.device)
        scale = SMOKE if arguments.smoke else Scale()
        heading = {"command": " ".join(["python", *sys.argv]), "smoke": arguments.smoke}
        report = Report(arguments.out, arguments.minutes * 60, heading)
        with ExitStack() as stack:
            folders = pairs.processed(arguments.data, arguments.images, scale, stack)
            session = Session(report, hardware, scale, folders)
            for name in dict.fromkeys(("environment", *arguments.only)):
                getattr(session, name)()
    except InputError as error:
        print(*(f"gpu: error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 1
    print(f"\n{report.table()}\n{arguments.out / 'report.json'}: all of it as JSON")
    return 1 if report.content["failed"] else 0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="processed directory: images.npy, masks.npy, samples.csv")
    source.add_argument("--images", type=Path, help="directory of images and masks, as for download.folder")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="directory for the results")
    parser.add_argument("--minutes", type=float, default=9, help="nothing starts that would probably end later")
    parser.add_argument(
        "--only",
        type=_parts,
        default=PARTS,
        help=f"some of {', '.join(PARTS)}, joined by commas; the first is always made",
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<index>, or cpu to try the script")
    parser.add_argument("--smoke", action="store_true", help="every part at a size at which its figures mean nothing")
    return parser.parse_args()


def _parts(text: str) -> tuple[str, ...]:
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in chosen)


class Session:
    """One run on one card: each public method is a part of the report."""

    def __init__(self, report: Report, hardware: torch.device, scale: Scale, folders: dict[str, Path]):
        self.report, self.device, self.scale, self.folders = report, hardware, scale, folders
        self.images, self.masks = open_arrays(list(folders.values())[-1])  # speed does not depend on which
        if self.images.shape[1] != scale.side:
            raise InputError(
                f"--data: found images of {self.images.shape[1]}×{self.images.shape[2]}, expected {scale.side}×"
                f"{scale.side}: the figures are for that size; run preprocess with preprocess.image_size={scale.side}"
            )
        self.formats = card.formats(hardware)
        self.usual = NAMES[precision.choose("auto", hardware)]
        self.workers = default_workers(hardware, cores())

    def environment(self) -> None:
        """The card, its two rates, and the limits they set to a training step."""
        report, scale = self.report, self.scale
        report.measure("environment", {}, lambda: card.environment(self.device), 0)
        for name in self.formats:
            self._measure(
                "matrix_rate", {"precision": name}, lambda name=name: card.matrix_rate(name, scale, self.device)
            )
        self._measure("memory_rate", {}, lambda: card.memory_rate(scale, self.device))
        for name in dict.fromkeys([self.usual, "fp32"]):
            report.measure("cost", {"precision": name}, lambda name=name: asdict(self._cost(name)), 0)
        for batch in scale.batches:
            settings = {"precision": self.usual, "batch": batch}
            report.measure("limits", settings, lambda batch=batch: self._limits(batch), 0)

    def steps(self) -> None:
        """The bare step in every variant that needs no compilation."""
        cuda = self.device.type == "cuda"
        for variant in step.variants(self.scale.batches, self.formats, self.usual, cuda):
            self._measure("steps", asdict(variant), lambda variant=variant: self._step(variant), 5)

    def loop(self) -> None:
        """The full loop beside the bare step, and what loading alone could deliver."""
        for batch in self.scale.batches:
            for augmented in (True, False):
                settings = {"batch": batch, "augmented": augmented, "workers": self.workers}
                self._measure("loading", settings, lambda s=settings: self._loading(**s), 5)
                variant = Variant(batch, self.usual)
                settings = asdict(variant) | {"augmented": augmented}
                self._measure("loop", settings, lambda v=variant, a=augmented: self._loop(v, a), 10)

    def recipe(self) -> None:
        """The published recipe on every data set, with three seeds."""
        known = self._bare(Variant(self.scale.recipe_batch, self.usual)) or 100
        for name, folder in self.folders.items():
            images = self.scale.epochs * sum(sample.split == "train" for sample in read_samples(folder))
            for seed in self.scale.seeds:

                def run(seed: int = seed, folder: Path = folder) -> Row:
                    augment = self._augment(seed)
                    return recipe.train_and_score(folder, seed, self.usual, self.scale, augment, self.device)

                settings = {"data": name, "seed": seed, "precision": self.usual}
                self.report.measure("recipe", settings, run, 10 + 1.5 * images / known)

    def tests(self) -> None:
        """The tests that need a card."""
        self.report.measure("tests", {}, lambda: suite.run(self.report.remaining, self.report.folder / "tests.txt"), 60)

    def prediction(self) -> None:
        """Prediction as the evaluate stage does it."""
        for name in VIEWS:
            settings = {"test_time_augmentation": name, "views": VIEWS[name]}
            run = lambda name=name: inference.speed(name, self.scale, self.images, self.device)  # noqa: E731
            self._measure("prediction", settings, run, 5 * VIEWS[name])

    def profile(self) -> None:
        """Where the time of the usual step goes, at the smallest and at the largest batch."""
        for batch in (self.scale.batches[0], self.scale.batches[-1]):
            self._measure(
                "profile", {"batch": batch, "precision": self.usual}, lambda batch=batch: self._profile(batch), 15
            )

    def compiled(self) -> None:
        """Step and loop under torch.compile."""
        ends = (self.scale.batches[0], self.scale.batches[-1])
        for variant in step.compiled_variants(self.scale.batches, self.usual):
            self._measure("steps", asdict(variant), lambda variant=variant: self._step(variant), 60)
            if variant.deterministic and variant.batch in ends:
                settings = asdict(variant) | {"augmented": True}
                self._measure("loop", settings, lambda variant=variant: self._loop(variant, True), 60)

    def _measure(self, part: str, settings: Row, measurement, estimate: float = 5) -> None:
        self.report.measure(part, settings, measurement, estimate)

    def _rate(self, part: str, column: str, **settings: object) -> float | None:
        """A figure that was measured before, of the row with these settings; None where there is none."""
        rows = (row for row in self.report.rows(part) if settings.items() <= row.items())
        return next((row[column] for row in rows), None)

    def _cost(self, name: str) -> limits.Cost:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
        return limits.cost(self.scale.network, self.scale.base_width, self.scale.side, dtype)

    def _limits(self, batch: int) -> Row:
        matrix = self._rate("matrix_rate", "tflops", precision=self.usual)
        memory = self._rate("memory_rate", "gb_per_second")
        if matrix is None or memory is None:
            raise Missing("the card's rates were not measured")
        cost, rates = self._cost(self.usual), (matrix * 1e12, memory * 1e9)
        seconds = {
            "by_operations": cost.by_operations(batch, rates[0]),
            "by_bytes": cost.by_bytes(batch, rates[1]),
            "in_turn": cost.in_turn(batch, *rates),
        }
        return {f"images_per_second_{name}": batch / value for name, value in seconds.items()}

    def _step(self, variant: Variant) -> Row:
        row = step.speed(variant, self.scale, self.images, self.masks, self.device)
        matrix = self._rate("matrix_rate", "tflops", precision=variant.precision)
        share = None
        if matrix is not None:
            share = row["images_per_second"] * self._cost(variant.precision).operations / (matrix * 1e12)
        return row | {"share_of_matrix_rate": share}

    def _bare(self, variant: Variant) -> float | None:
        return self._rate("steps", "images_per_second", **asdict(variant))

    def _loading(self, batch: int, augmented: bool, workers: int) -> Row:
        samples = Samples(self.images, self.masks, self._augment(0) if augmented else None)
        return loop.loader_speed(samples, batch, workers, self.device, self.scale.seconds)

    def _loop(self, variant: Variant, augmented: bool) -> Row:
        bare = self._bare(variant)
        augment = self._augment(0) if augmented else None
        row = loop.speed(variant, self.scale, self.images, self.masks, augment, self.device, bare or 100)
        return row | {"below_bare_step": None if bare is None else 1 - row["images_per_second"] / bare}

    def _profile(self, batch: int) -> Row:
        call = step.build(Variant(batch, self.usual), self.scale, self.images, self.masks, self.device)
        rows, totals = kernels.profiled(call, self.device)
        for row in rows:
            self.report.add("profile_by_kind", {"batch": batch} | row)
        return totals

    def _augment(self, seed: int) -> Augment:
        """The published augmentation: flips and right angles."""
        try:
            from lesionseg.train.augment import Augmenter
        except ModuleNotFoundError as error:
            raise Missing(f"augmentation needs {error.name}, which is not installed") from None
        return Augmenter(seed, self.images.shape[1])


# in this order: what is worth most comes first, what takes longest last
PARTS = ("environment", "steps", "loop", "recipe", "profile", "prediction", "tests", "compiled")

if __name__ == "__main__":
    sys.exit(main())
