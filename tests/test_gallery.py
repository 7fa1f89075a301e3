"""Galleries: which images they show, and that every pixel means what the key says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from evaluated import disc, write_evaluation
from lesionseg.common.errors import InputError
from lesionseg.formats.processed import open_folders
from lesionseg.visualize import gallery, palette
from lesionseg.visualize.gallery import Example, pick
from lesionseg.visualize.image_file import png_bytes
from lesionseg.visualize.results import read_predictions, read_results

IDS = [f"image {number:02d}" for number in range(9)]
SCORES = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]


def scores_of(kind: str, count: int, **more) -> list[float]:
    return [SCORES[index] for index in pick(kind, IDS, SCORES, count, **more)]


def test_best_median_and_worst_by_falling_score():
    assert scores_of("best", 3) == [0.9, 0.8, 0.7]
    assert scores_of("median", 3) == [0.6, 0.5, 0.4]
    assert scores_of("worst", 3) == [0.3, 0.2, 0.1]
    assert scores_of("median", 1) == [0.5]


@pytest.mark.parametrize("kind", gallery.KINDS)
@pytest.mark.parametrize("count", [1, 4, 9, 16])
def test_no_image_twice_and_never_more_than_there_are(kind, count):
    chosen = pick(kind, IDS, SCORES, count)
    assert len(chosen) == len(set(chosen)) == min(count, 9)
    assert [SCORES[index] for index in chosen] == sorted((SCORES[index] for index in chosen), reverse=True)


def test_ties_are_broken_by_id_not_by_position():
    ids = ["c", "a", "b", "d"]
    assert [ids[index] for index in pick("best", ids, [1.0] * 4, 2)] == ["a", "b"]


def test_the_random_gallery_depends_on_seed_and_ids_alone():
    drawn = {seed: frozenset(scores_of("random", 4, seed=seed)) for seed in range(20)}
    assert len(set(drawn.values())) > 10
    turned = pick("random", IDS[::-1], SCORES[::-1], 4, seed=3)
    assert {SCORES[::-1][index] for index in turned} == drawn[3]
    assert set(scores_of("random", 3, seed=3)) < drawn[3], "a larger gallery contains a smaller one"


def test_the_random_gallery_draws_every_image_equally_often():
    counts = np.bincount([index for seed in range(900) for index in pick("random", IDS, SCORES, 3, seed)])
    assert counts.min() > 240, "300 on average, standard deviation 14"
    assert counts.max() < 360


def example(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None = None) -> Example:
    image = np.random.default_rng(0).integers(60, 220, (*truth.shape, 3), np.uint8)
    return Example("id", "", image, truth, predicted, 255 * predicted if probabilities is None else probabilities)


def pixels_of(colour: str, picture: np.ndarray) -> np.ndarray:
    return (picture == palette.hex_to_rgb(colour)).all(-1)


def test_the_error_map_shows_each_kind_of_pixel_in_its_colour():
    truth, predicted = disc(64, 30, 30, 14), disc(64, 36, 30, 14)
    picture = gallery.error_map(example(truth, predicted), (64, 64))
    np.testing.assert_array_equal(pixels_of(palette.AGREEMENT, picture), (truth == 1) & (predicted == 1))
    np.testing.assert_array_equal(pixels_of(palette.TRUTH, picture), (truth == 1) & (predicted == 0))
    np.testing.assert_array_equal(pixels_of(palette.PREDICTION, picture), (truth == 0) & (predicted == 1))
    rest = picture[(truth == 0) & (predicted == 0)]
    assert rest.max() < 128, "the photograph around is dark"
    assert len(np.unique(rest)) > 3, "and still to be seen"


def test_outlines_lie_on_the_borders_and_nowhere_else():
    truth, predicted = disc(64, 20, 32, 12), disc(64, 44, 32, 12)
    shown = example(truth, predicted)
    picture = gallery.outlined(shown, (64, 64))
    rows, columns = np.mgrid[:64, :64]
    from_truth = np.abs(np.hypot(columns - 20, rows - 32) - 12)
    from_prediction = np.abs(np.hypot(columns - 44, rows - 32) - 12)
    far = (from_truth > 4) & (from_prediction > 4)
    np.testing.assert_array_equal(picture[far], shown.image[far])
    for colour, centre in ((palette.TRUTH, 20), (palette.PREDICTION, 44)):
        close = np.abs(picture.astype(int) - palette.hex_to_rgb(colour)).max(-1) < 60
        for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):  # all the way round
            x, y = centre + 12 * np.cos(angle), 32 + 12 * np.sin(angle)
            if abs(x - 32) > 2:  # where they cross, the prediction lies above
                assert close[np.hypot(columns - x, rows - y) < 1.5].any(), (colour, angle)


def test_a_prediction_of_nothing_but_lesion_is_framed_and_one_of_none_is_not():
    nothing, everything = np.zeros((32, 32), np.uint8), np.ones((32, 32), np.uint8)
    shown = example(nothing, nothing)
    np.testing.assert_array_equal(gallery.outlined(shown, (32, 32)), shown.image)
    shown = example(nothing, everything)
    picture = gallery.outlined(shown, (32, 32))
    line = np.abs(picture.astype(int) - palette.hex_to_rgb(palette.PREDICTION)).max(-1) < 60
    assert line[[1, -2], 1:-1].all()
    assert line[1:-1, [1, -2]].all()
    np.testing.assert_array_equal(picture[6:-6, 6:-6], shown.image[6:-6, 6:-6])


def test_the_caption_says_where_nothing_or_everything_is_predicted():
    nothing, everything = np.zeros((32, 32), np.uint8), np.ones((32, 32), np.uint8)
    shown = [
        replace(example(nothing, everything), caption="Dice 0.1 · IoU 0.1"),
        replace(example(everything, nothing), caption="Dice 0.2 · IoU 0.2"),
    ]
    figure = gallery.draw(gallery.Gallery("worst", "val", 2, shown))
    words = [text.get_text() for text in figure.texts]
    assert "Dice 0.1 · everything predicted" in words
    assert "Dice 0.2 · nothing predicted" in words


def test_an_id_is_drawn_as_it_is_written():
    mask = disc(32, 16, 16, 8)
    one = replace(example(mask, mask), id="$a_1$ <b>^{}")
    figure = gallery.draw(gallery.Gallery("best", "val", 1, [one], 0.37))
    FigureCanvasAgg(figure).draw()
    (drawn,) = [text for text in figure.texts if text.get_text() == one.id]
    assert not drawn.get_parse_math()
    assert "| threshold 0.37" in [text.get_text() for text in figure.texts]


def test_the_probability_map_grows_lighter_with_the_probability():
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(256, 0)
    picture = gallery.probability_map(example(ramp > 127, ramp > 127, ramp), (256, 256))
    lightness = picture[0].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) >= 0).all()
    assert tuple(picture[0, 0]) == gallery.VIRIDIS[0]
    assert tuple(picture[0, -1]) == gallery.VIRIDIS[-1]


@pytest.mark.parametrize("shape", [(64, 64), (256, 256), (512, 512), (96, 128)])
def test_panels_keep_their_proportions_and_large_galleries_their_pixels(shape):
    height, width = gallery.panel_size(shape, 4)
    assert max(height, width) == gallery.PANEL
    assert height / width == pytest.approx(shape[0] / shape[1], rel=0.01)
    many = gallery.panel_size(shape, gallery.MOST)
    assert gallery.MOST * many[0] * many[1] <= 4.1 * height * width
    for panel in (gallery.outlined, gallery.probability_map, gallery.error_map):
        assert panel(example(disc(64, 30, 30, 9), disc(64, 32, 30, 9)), many).shape == (*many, 3)


@pytest.fixture
def evaluation(tmp_path):
    write_evaluation(tmp_path, {"train": 3, "val": 7, "official_test": 2})
    return tmp_path


def read(root: Path, count: int = 3, named: tuple[str, ...] = ()) -> list[gallery.Gallery]:
    both = open_folders(root / "data/processed", root / "data/held_out")
    predictions = read_predictions(root / "data/evaluation", len(both.samples), both.images.shape[1:3])
    results = read_results(root / "data/evaluation", root / "plots", root / "models/trained")
    return list(gallery.galleries(results, predictions, both, count, 0, named))


def test_every_example_has_the_pixels_of_its_id(evaluation):
    """The captions' Dice comes from the table by id, the masks from the arrays by index: they must agree."""
    shown = read(evaluation)
    assert [(each.split, each.kind) for each in shown] == [
        (split, kind) for split in ("val", "official_test") for kind in gallery.KINDS
    ]
    assert [each.images for each in shown] == [7] * 4 + [2] * 4
    for each in shown:
        assert len(each.examples) == min(3, each.images)
        for one in each.examples:
            overlap = np.logical_and(one.truth, one.predicted).sum()
            dice = 2 * overlap / (one.truth.sum() + one.predicted.sum())
            assert float(one.caption.split()[1]) == pytest.approx(dice, abs=0.001)
            np.testing.assert_array_equal(one.predicted, one.probabilities >= 128)


def test_a_gallery_holds_its_panels_pixel_by_pixel(evaluation):
    shown = read(evaluation)[0]
    figure = gallery.draw(shown)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    size = gallery.panel_size((64, 64), 3)
    for column, one in enumerate(shown.examples):
        for row, (_, panel) in enumerate(gallery.ROWS):
            x = gallery.LEGEND + column * (size[1] + gallery.GAP)
            y = gallery.TITLE + gallery.CAPTION + row * (size[0] + gallery.GAP)
            np.testing.assert_array_equal(picture[y : y + size[0], x : x + size[1]], panel(one, size))
    assert len(png_bytes(figure, 256, gallery.VIRIDIS)) < 350_000


@pytest.mark.parametrize("count", [1, 5, gallery.MOST])
def test_any_number_of_examples_can_be_drawn(evaluation, count):
    shown = read(evaluation, count)[0]
    figure = gallery.draw(shown)
    width, height = figure.get_size_inches() * gallery.DPI
    assert width <= gallery.LEGEND + 4 * (gallery.PANEL + gallery.GAP)
    assert height < 3000
    words = [text.get_text() for text in figure.texts]
    assert words[0] == "Best predictions by Dice · validation split, 7 images, threshold 0.50"
    assert [word for word in words if word.startswith("ISIC_")] == [one.id for one in shown.examples]


def test_a_long_id_keeps_both_ends():
    name = "patient-0001-left-forearm-visit-3-dermoscopy-0007"
    short = gallery._shorten(name)
    assert len(short) <= 26
    assert short.startswith("patient-")
    assert short.endswith("-0007")


def test_a_scored_image_without_prediction_is_named(evaluation):
    table = evaluation / "plots/per_image.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([*lines, lines[-1].replace(lines[-1].split(",")[0], "GHOST")]), encoding="utf-8")
    with pytest.raises(InputError, match=r"per_image.csv: no prediction for 1 of its images, such as GHOST"):
        read(evaluation)


def test_named_images_have_a_gallery_of_their_own_in_the_order_named(evaluation):
    everything = read(evaluation)
    names = [everything[-1].examples[0].id, everything[0].examples[1].id, everything[0].examples[0].id]
    chosen = [each for each in read(evaluation, named=tuple(names)) if each.kind == gallery.CHOSEN]
    assert [(each.split, [one.id for one in each.examples]) for each in chosen] == [
        ("val", names[1:]),
        ("official_test", names[:1]),
    ]
    with pytest.raises(InputError, match=r"visualize.ids: found NO_SUCH, NOR_THIS; expected ids of evaluated images"):
        read(evaluation, named=("NO_SUCH", names[0], "NOR_THIS"))


def test_the_overview_is_the_extremes_of_the_first_split(evaluation):
    shown = gallery.overview(read(evaluation))
    dice = [float(one.caption.split()[-1]) for one in shown.examples]
    assert [one.caption.split(":")[0] for one in shown.examples] == list(gallery.KINDS)
    assert dice[0] >= dice[1] >= dice[2]
    everything = read(evaluation, count=7)[0]
    assert (dice[0], dice[2]) == tuple(float(everything.examples[end].caption.split()[1]) for end in (0, -1))


def test_a_gallery_for_print_has_more_pixels_of_the_same_layout(evaluation):
    shown = read(evaluation)[0]
    small, large = gallery.draw(shown), gallery.draw(shown, 2)
    assert tuple(large.get_size_inches()) == tuple(small.get_size_inches())
    assert large.dpi == 2 * small.dpi
