"""The report page: its words and numbers, and its behaviour in a real browser."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import chromium
from evaluated import write_evaluation
from lesionseg.formats.processed import open_folders
from lesionseg.visualize import gallery, report
from lesionseg.visualize.charts import charts
from lesionseg.visualize.results import read_json, read_predictions, read_results

in_browser = chromium.needed
UNDEFINED = "ISIC_0000033"  # an image whose boundary distance is undefined
BEGINS = {  # where groups of a breakdown begin
    ("size", "medium"): "5 %",
    ("size", "large"): "25 %",
    ("contrast", "medium"): "15 ΔE",
    ("contrast", "high"): "30 ΔE",
    ("hair", "much"): "3 %",
}
PHONE, DESKTOP = (390, 844), (1280, 900)


def render(root: Path, examples: int = 2) -> str:
    both = open_folders(root / "data/processed", root / "data/held_out")
    predictions = read_predictions(root / "data/evaluation", len(both.samples), both.images.shape[1:3])
    results = read_results(root / "data/evaluation", root / "plots", root / "models/trained")
    shown = list(gallery.galleries(results, predictions, both, examples, 0))
    return report.render_page(results, shown, list(charts(results)), read_json(root / "data/summary/summary.json"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """60 validation images, so that the table has two pages, and 5 of the official test set."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation(folder, {"train": 4, "val": 60, "official_test": 5}, size=32)
    table = folder / "plots/per_image.csv"
    lines = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()]
    undefined = next(line for line in lines if line[0] == UNDEFINED)
    undefined[lines[0].index("hd95")] = ""
    table.write_text("\n".join(",".join(line) for line in lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(root):
    path = root / "plots/report.html"
    path.write_text(render(root), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8234567, "0.823"), (0.0, "0.000"), (0.0001234, "0.000123"), (133.38, "133.4"), (1234567, "1,234,567"),
        (True, "yes"), (None, "–"), ("unet", "unet"), ([1, 0.5], "1, 0.500"), (-0.25, "-0.250"),
    ],
)  # fmt: skip
def test_numbers_are_shown_short(value, text):
    assert report.number(value) == text


def test_scores_are_flattened_with_their_intervals():
    scored = {
        "images": 3,
        "pooled": {"dice": 0.8, "dice_low": 0.7, "dice_high": 0.9, "iou": None},
        "a": {"b": {"c": 1}},
    }
    assert report.score_rows(scored) == [
        ("images", "3", ""),
        ("pooled · dice", "0.800", "0.700 to 0.900"),
        ("pooled · iou", "–", ""),
        ("a · b · c", "1", ""),
    ]


def test_a_name_that_ends_like_a_bound_is_a_score_of_its_own():
    assert report.score_rows({"threshold_low": 0.2}) == [("threshold_low", "0.200", "")]


def test_settings_fold_the_innermost_group():
    nested = {"images": 4, "splits": {"val": {"images": 1, "size": {"min": 0.1, "max": 0.2}}}}
    assert report.setting_rows(nested) == [
        ("images", "4"),
        ("splits · val · images", "1"),
        ("splits · val · size", "min 0.100, max 0.200"),
    ]


def test_the_page_shows_the_scores_of_the_evaluation(root, page):
    text = page.read_text(encoding="utf-8")
    for scored in read_json(root / "data/evaluation/detail.json")["splits"].values():
        for group, name, *_ in report.HEADLINE:
            assert f"<b>{report.number(scored[group][name])}</b>" in text
        if "no_interval" in scored:
            continue
        low, high = scored["per_image"]["dice_low"], scored["per_image"]["dice_high"]
        assert f"{low:.3f} to {high:.3f}" in text


def test_the_breakdowns_are_tables_with_numbers_of_images_and_intervals(root, page):
    text = page.read_text(encoding="utf-8")
    for scores in read_json(root / "data/evaluation/detail.json")["splits"].values():
        for name in ("size", "border", "contrast", "hair"):
            assert f"<h3>By {name}, " in text
            for group, found in scores[f"by_{name}"].items():
                bounds = report.interval(found, "dice")
                assert bool(bounds) == (found["images"] >= 10)
                extra = f'<br><span class="interval">{bounds}</span>' if bounds else ""
                cells = (
                    f'<td class="number">{found["images"]}</td><td class="number">{report.number(found["dice"])}{extra}'
                )
                begins = BEGINS.get((name, group))
                begins = f' <span class="interval">from {begins}</span>' if begins else ""
                assert f'<th scope="row">{group}{begins}</th>{cells}' in text


def test_it_opens_with_what_it_is_about(root, page):
    text = page.read_text(encoding="utf-8")
    opening = text[: text.index("<nav")]
    for words in (
        "synthetic photographs drawn by this project (69 images)",
        "60 images in val",
        "unet, base width 4",
        "epoch 3, by the rule",
        "0.50 on val, 0.50 on official_test",
        "cpu, float32",
        "SHA-256 ",
    ):
        assert words in opening
    assert "ISIC Archive" not in text, "of what was not used there is no attribution"
    assert "undefined" not in text.partition("<script")[0]


def test_data_of_the_challenge_is_attributed(root):
    summary = root / "data/summary/summary.json"
    before = summary.read_text(encoding="utf-8")
    summary.write_text(before.replace('"synthetic"', '"isic2018"'), encoding="utf-8")
    try:
        assert "10.1038/sdata.2018.161" in render(root)
    finally:
        summary.write_text(before, encoding="utf-8")


def test_a_validation_split_that_chose_is_named_so():
    assert report.chosen_on({"keep": "last", "train.early_stopping": None}) == ""
    assert "chose the epoch kept, so" in report.chosen_on({"keep": "best"})
    assert "chose the epoch kept and when to stop, so" in report.chosen_on({"keep": "best", "train.early_stopping": 3})


def test_every_main_score_leads_to_its_meaning(page):
    text = page.read_text(encoding="utf-8")
    for _, _, words, meaning in report.HEADLINE:
        assert f'<a href="#m-{meaning}">{words}</a>' in text
    for target in set(re.findall(r'href="#([^"]+)"', text)):
        assert f'id="{target}"' in text


def test_the_table_is_the_csv(root, page):
    table = json.loads(re.search(r'id="table">(.*?)</script>', page.read_text(encoding="utf-8"))[1])
    lines = (root / "plots/per_image.csv").read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    assert table["columns"] == [name for name in header if name not in report.NOT_SHOWN]
    assert len(table["rows"]) == len(lines) - 1 == 65
    for row, line in zip(table["rows"], lines[1:], strict=True):
        texts = dict(zip(header, line.split(","), strict=True))
        for value, name, numeric in zip(row, table["columns"], table["numeric"], strict=True):
            assert (float(texts[name]) if texts[name] else None) == value if numeric else texts[name] == value
    assert dict(zip(table["columns"], table["decimals"], strict=True))["width"] == 0


def test_nothing_comes_from_outside(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert "url(" not in text


def test_only_the_script_of_the_page_may_run(page):
    text = page.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert text.count("script-src") == 1


def test_every_picture_has_words(page):
    images = re.findall(r"<img [^>]*>", page.read_text(encoding="utf-8"))
    panels = [image for image in images if "image/webp" in image]
    assert len(panels) == 2 * 4 * 2 * 3, "splits × kinds × examples × panels"
    assert len(images) > len(panels), "and the charts"
    assert all(re.search(r'alt="[^"]{8,}"', image) for image in images)


def test_a_hostile_id_stays_text(tmp_path):
    write_evaluation(tmp_path, {"train": 1, "val": 2}, size=32)
    evil = "</script><b onclick=alert(1)>&"
    for path in (tmp_path / "plots/per_image.csv", tmp_path / "data/evaluation/samples.csv"):
        first = path.read_text(encoding="utf-8").splitlines()[1].split(",")[0]
        path.write_text(path.read_text(encoding="utf-8").replace(first, evil), encoding="utf-8")
    text = render(tmp_path)
    assert "<b onclick" not in text
    assert text.count("</script>") == 2
    assert "&lt;b onclick" in text


def make_photographic(root: Path) -> None:
    """Grain like hair and pores in the pictures, masks of one piece: as large when compressed as photographs are.

    The small network speckles pictures of this size, and outlines of thousands of specks are what no photograph has.
    """
    random = np.random.default_rng(0)
    for path in (root / "data/processed/images.npy", root / "data/held_out/images.npy"):
        images = np.load(path)
        grain = [cv2.GaussianBlur(random.normal(0, 30, images.shape[1:]), (0, 0), 1.5) for _ in images]
        np.save(path, np.clip(images + grain, 0, 255).astype(np.uint8))
    for path in (root / "data/evaluation/probabilities.npy", root / "data/evaluation/predicted.npy"):
        np.save(path, np.stack([cv2.medianBlur(each, 31) for each in np.load(path)]))


@pytest.mark.slow
def test_a_large_evaluation_stays_under_four_megabytes(root, page, tmp_path):
    """Three splits with the largest galleries, and 2,594 rows in the table."""
    splits = {"train": 1, "val": gallery.MOST * 3, "official_validation": gallery.MOST * 3, "official_test": 48}
    write_evaluation(tmp_path, splits, size=256)
    make_photographic(tmp_path)
    rows = re.search(r'"rows": (.*?)}</script>', page.read_text(encoding="utf-8"))[1]
    assert len(render(tmp_path, gallery.MOST)) + 2594 * len(rows) / 65 < 4_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


def shown(browser) -> list[list[str]]:
    """The rows of the table that are on the page."""
    script = "return [...document.querySelectorAll('#images tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    return browser.run(script)


def sort_by(browser, label: str) -> str:
    """Click a column's head; its aria-sort afterwards."""
    return browser.run(
        "const head = [...document.querySelectorAll('#images th')].find(h => h.textContent === arguments[0]);"
        "head.firstElementChild.click(); return head.getAttribute('aria-sort')",
        label,
    )


def fill(browser, **fields: str) -> None:
    browser.run(
        "const form = document.getElementById('filters');"
        "for (const [name, value] of Object.entries(arguments[0])) form.elements[name].value = value;"
        "form.dispatchEvent(new Event('input'))",
        fields,
    )


def status(browser) -> str:
    return browser.run("return document.getElementById('shown').textContent")


@in_browser
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_loads_without_errors_requests_or_sideways_scrolling(browser, page, viewport):
    browser.open(page, *viewport)
    assert browser.console() == []
    requests = [address for address in browser.requests() if not address.startswith("data:")]
    assert requests == [page.resolve().as_uri()]
    width, visible = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= visible == viewport[0]
    assert browser.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.run("return document.documentElement.scrollWidth") <= visible
    if viewport == DESKTOP:
        boxes = "return [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert browser.run(boxes) == 0, "no column is cut"
    panel = browser.run("return document.querySelector('.panels img').getBoundingClientRect().width")
    assert panel >= 100, "panels are large enough to see an outline"
    chart = browser.run("return document.querySelector('.charts img').getBoundingClientRect().width")
    assert 9 * chart / (72 * report.CHART) >= 6.5, "letters of a chart, 9 points in the file, can be read"
    lines = "return document.querySelector('#images tbody tr').cells[0].getBoundingClientRect().height"
    assert browser.run(lines) < 35, "an id stands on one line"


@in_browser
def test_the_table_sorts_both_ways(browser, page):
    browser.open(page, *DESKTOP)
    assert len(shown(browser)) == 50
    assert status(browser) == "Images 1 to 50 of 65"
    assert sort_by(browser, "Dice") == "ascending"
    rising = [float(row[2]) for row in shown(browser)]
    assert rising == sorted(rising)
    assert sort_by(browser, "Dice") == "descending"
    falling = [float(row[2]) for row in shown(browser)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > rising[0]
    assert sort_by(browser, "id") == "ascending"
    names = [row[0] for row in shown(browser)]
    assert names == sorted(names)
    heads = browser.run("return document.querySelectorAll('#images th').length")
    assert browser.run("return document.querySelectorAll('#images th[aria-sort=none]').length") == heads - 1


@in_browser
def test_the_table_turns_its_pages(browser, page):
    browser.open(page, *DESKTOP)
    first = {row[0] for row in shown(browser)}
    browser.run("document.getElementById('next').click()")
    assert status(browser) == "Images 51 to 65 of 65"
    assert first.isdisjoint({row[0] for row in shown(browser)})
    assert browser.run("return document.getElementById('next').disabled")
    sort_by(browser, "Dice")
    assert status(browser) == "Images 1 to 50 of 65", "a new order starts at its first page"


@in_browser
def test_the_table_filters_by_text_split_and_number(browser, page):
    browser.open(page, *DESKTOP)
    fill(browser, split="official_test")
    assert {row[1] for row in shown(browser)} == {"official_test"}
    assert status(browser) == "Images 1 to 5 of 5 that match, out of 65"
    name = shown(browser)[2][0]
    fill(browser, text=name.lower())
    assert [row[0] for row in shown(browser)] == [name]
    fill(browser, text="", split="", low="0.5", high="0.8")
    dice = [float(row[2]) for row in shown(browser)]
    assert dice
    assert all(0.4995 <= value <= 0.8005 for value in dice)
    fill(browser, text="no such image")
    assert shown(browser) == []
    assert status(browser) == "None of the 65 images match"
    browser.run("document.querySelector('#filters button').click()")
    assert browser.run(
        "return new Promise(done => setTimeout(() => done(document.querySelectorAll('tbody tr').length)))"
    )
    assert status(browser) == "Images 1 to 50 of 65"


@in_browser
def test_the_undefined_come_last_whichever_way_one_sorts(browser, page):
    browser.open(page, *DESKTOP)
    for _ in range(2):
        sort_by(browser, "HD95, px")
        browser.run("document.getElementById('next').click()")
        last = shown(browser)[-1]
        assert last[0] == UNDEFINED
        assert "–" in last


def test_the_panels_are_those_of_the_gallery(root):
    """WebP is lossy: the colours of the error map still tell their kinds apart."""
    example = next(iter(read_gallery(root))).examples[0]
    size = gallery.panel_size(example.image.shape[:2], gallery.COLUMNS)
    exact = gallery.error_map(example, size)
    decoded = np.asarray(Image.open(io.BytesIO(report._webp(exact))).convert("RGB")).astype(int)
    assert np.abs(decoded - exact).mean() < 6


def read_gallery(root: Path):
    both = open_folders(root / "data/processed", root / "data/held_out")
    predictions = read_predictions(root / "data/evaluation", len(both.samples), both.images.shape[1:3])
    results = read_results(root / "data/evaluation", root / "plots", root / "models/trained")
    return gallery.galleries(results, predictions, both, 1, 0)
