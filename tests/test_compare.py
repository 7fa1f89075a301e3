"""Two runs compared: the paired interval, the words, and what is flagged or left out."""

import argparse
import subprocess
import sys

import numpy as np
import pytest

from lesionseg.common.errors import InputError
from lesionseg.compare import options, runs
from lesionseg.compare.comparison import compare, lower_is_better
from lesionseg.compare.table import read
from lesionseg.scoring.bootstrap import Resampling

RESAMPLING = Resampling(500, 0)
COLUMNS = "split,id,group,tp,fp,fn,tn,dice,iou,jaccard_native,width,height,lesion_fraction"
LESION, PIXELS = 200, 1000


def row(name, dice, split="val", group=None, size=(60, 40), lesion=LESION):
    """The row of an image with a lesion of `lesion` pixels, as much of it missed as gives about this Dice."""
    tp = round(lesion * dice / (2 - dice))
    dice, iou = 2 * tp / (lesion + tp), tp / lesion
    counts = f"{tp},0,{lesion - tp},{PIXELS - lesion}"
    return (
        f"{split},{name},{group or name},{counts},{dice:.4f},{iou:.4f},{iou:.4f},{size[0]},{size[1]},{lesion / PIXELS}"
    )


def table(name, rows):
    return read("\n".join([COLUMNS, *rows]) + "\n", name)


def differences(a, b, **more):
    compared = compare(table("A", a), table("B", b), RESAMPLING, **more)
    return {(each.split, each.score): each for each in compared.differences}, compared


@pytest.fixture(scope="module")
def hard_and_easy():
    """The Dice of 40 images that differ far more from each other than any two runs do."""
    return np.random.default_rng(0).uniform(0.3, 0.9, 40)


def test_a_small_difference_on_every_image_is_found(hard_and_easy):
    noise = np.random.default_rng(1).normal(0, 0.01, 40)
    a = [row(f"i{n}", dice) for n, dice in enumerate(hard_and_easy)]
    b = [row(f"i{n}", dice + 0.03 + noise[n]) for n, dice in enumerate(hard_and_easy)]
    found, _ = differences(a, b)
    for score in ("pooled.dice", "per_image.dice", "per_image.iou"):
        assert found["val", score].word == "better"
        assert 0 < found["val", score].low < found["val", score].change < found["val", score].high
    back, _ = differences(b, a)
    assert back["val", "pooled.dice"].word == "worse"
    assert back["val", "pooled.dice"].change == -found["val", "pooled.dice"].change


def test_a_difference_that_some_images_make_and_others_unmake_is_noise(hard_and_easy):
    noise = np.random.default_rng(2).normal(0, 0.05, 40)
    a = [row(f"i{n}", dice) for n, dice in enumerate(hard_and_easy)]
    b = [row(f"i{n}", dice + noise[n]) for n, dice in enumerate(hard_and_easy)]
    assert differences(a, b)[0]["val", "per_image.dice"].word == "within noise"


def test_the_same_run_twice_is_equal(hard_and_easy):
    a = [row(f"i{n}", dice) for n, dice in enumerate(hard_and_easy)]
    found, compared = differences(a, a)
    assert {each.word for each in found.values()} == {"equal"}
    assert compared.notes == []


def test_fewer_failures_are_better():
    a = [row(f"i{n}", 0.5) for n in range(20)]
    b = [row(f"i{n}", 0.95 if n < 15 else 0.5) for n in range(20)]
    found, _ = differences(a, b)
    assert found["val", "official.failure_rate"].change == pytest.approx(-0.75)
    assert found["val", "official.failure_rate"].word == "better"
    assert lower_is_better("boundary.hd95")
    assert not lower_is_better("official.threshold_jaccard")


def test_the_pooled_score_is_that_of_the_summed_counts():
    a = [row("x", 0.5, lesion=100), row("y", 0.9, lesion=600)]
    found, _ = differences(a, a)
    tp = sum(int(line.split(",")[3]) for line in a)
    fn = sum(int(line.split(",")[5]) for line in a)
    assert found["val", "pooled.dice"].a == pytest.approx(2 * tp / (2 * tp + fn))


def test_copies_of_one_photograph_count_once(hard_and_easy):
    """Ten lesions, each photographed four times, tell less than forty lesions."""
    change = np.repeat(np.random.default_rng(3).normal(0.02, 0.03, 10), 4)
    widths = []
    for groups in (range(40), np.repeat(range(10), 4)):
        a = [row(f"i{n}", 0.6, group=f"g{groups[n]}") for n in range(40)]
        b = [row(f"i{n}", 0.6 + change[n], group=f"g{groups[n]}") for n in range(40)]
        each = differences(a, b)[0]["val", "per_image.dice"]
        widths.append(each.high - each.low)
    assert widths[1] > 1.5 * widths[0]


def test_too_few_images_give_no_interval_and_no_verdict():
    found, compared = differences([row("x", 0.5), row("y", 0.6)], [row("x", 0.7), row("y", 0.8)])
    assert found["val", "pooled.dice"].word == "no interval"
    assert "val: no intervals: 2 images" in compared.notes[0]


def test_different_sets_are_said_and_only_shared_images_count():
    a = [row(f"i{n}", 0.5) for n in range(15)] + [row("only_a", 0.1)]
    b = [row(f"i{n}", 0.5) for n in range(15)] + [row("only_b", 0.9)]
    found, compared = differences(a, b)
    assert compared.images == {"val": 15}
    assert found["val", "per_image.dice"].change == 0
    assert compared.notes == [
        "val: different sets: 16 images in A, 16 in B, 15 in both; only those count here.",
    ]


def test_another_photograph_under_the_same_id_does_not_count():
    """The synthetic images of another seed have the same ids."""
    a = [row(f"i{n}", 0.5) for n in range(12)]
    b = [row(f"i{n}", 0.5, size=(61, 40) if n == 0 else (60, 40)) for n in range(12)]
    _, compared = differences(a, b)
    assert compared.images == {"val": 11}
    assert "1 image (i0) has another photograph or true mask under the same id" in compared.notes[0]


def test_images_that_one_run_was_trained_on_are_flagged_and_left_out():
    a = [row(f"i{n}", 0.5, split="official_test") for n in range(12)] + [row("v", 0.5), row("t", 0.5)]
    b = [row(f"i{n}", 0.5, split="official_test") for n in range(12)] + [row("v", 0.5)]
    _, compared = differences(a, b, trained_on={"A": {"v"}, "B": {"i3", "v", "t"}})
    assert compared.images == {"official_test": 11, "val": 1}
    assert "official_test: B was trained on 1 image (i3): left out." in compared.notes
    assert "A was evaluated on 1 image (t) that B was trained on: left out." in compared.notes


def test_an_image_in_another_split_is_flagged():
    _, compared = differences([row("x", 0.5), row("y", 0.5)], [row("x", 0.5), row("y", 0.5, split="external")])
    assert any("1 image (y) in another split of B than of A" in note for note in compared.notes)


def test_a_table_from_before_the_counts_is_compared_as_far_as_it_goes():
    drop = slice(2, 7)

    def older(line):
        cells = line.split(",")
        del cells[drop]
        return ",".join(cells)

    old = read("\n".join(map(older, [COLUMNS, row("x", 0.5)])), "old")
    names = {each.score for each in compare(old, table("B", [row("x", 0.7)]), RESAMPLING).differences}
    assert names == {"per_image.dice", "per_image.iou", "official.threshold_jaccard", "official.failure_rate"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the columns of an empty file"),
        ("split,id\nval,x\n", "dice, height, iou"),
        (COLUMNS + "\n", "no image in it"),
        (f"{COLUMNS}\n{row('x', 0.5)}\n{row('x', 0.5)}\n", "line 3: the image x of val appears a second time"),
        (f"{COLUMNS}\n{row('x', 0.5)[:20]}\n", "found None, expected a number"),
        (f"{COLUMNS}\n{row('x', 0.5).replace('60', 'wide')}\n", "width: found 'wide', expected a number"),
    ],
)
def test_what_is_no_table_is_named(text, message):
    with pytest.raises(InputError, match=message):
        read(text, "table.csv")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with the table of two runs, the second tagged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plots").mkdir()
    git("init", "--quiet")
    for message, dice in (("first", 0.5), ("second", 0.8)):
        rows = [row(f"i{n}", dice) for n in range(12)]
        (tmp_path / "plots/per_image.csv").write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
        git("add", "plots")
        git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", f"--message={message}")
    git("update-ref", "refs/exps/ab/cdef/wiry-stag", "HEAD~1")
    git("tag", "better")
    return tmp_path


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def test_revisions_experiments_and_folders_are_runs(repository, capsys):
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    for line in (["wiry-stag", "better"], ["HEAD~1"], [".", str(repository / "plots/per_image.csv")]):
        options.run(parser.parse_args(line))
    printed = capsys.readouterr().out
    assert printed.count("better\n") >= 2
    assert "val: compared on 12 images." in printed
    assert "What wiry-stag was trained on is not known here" in printed


def test_revisions_are_compared_where_dvc_is_not_installed(repository, capsys, monkeypatch):
    """As after `pip install lesionseg` without an extra."""
    monkeypatch.setitem(sys.modules, "dvc", None)
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    options.run(parser.parse_args(["HEAD~1", "better"]))
    printed = capsys.readouterr().out
    assert "better\n" in printed
    assert "What HEAD~1 was trained on is not known here" in printed


def test_a_run_that_is_not_there_is_named(repository):
    with pytest.raises(InputError, match="nowhere: found no folder, git revision or experiment"):
        runs.read("nowhere")
    (repository / "stages").mkdir()
    with pytest.raises(InputError, match=r"stages: found no plots/per_image.csv there"):
        runs.read("stages")


def test_what_a_table_of_a_stranger_holds_is_neither_obeyed_nor_taken_for_a_number():
    head = "split,id,group,tp,fp,fn,tn,dice,iou,jaccard_native,width,height,lesion_fraction\n"
    with pytest.raises(InputError, match="not a CSV table"):
        read(f"{head}val,{'x' * 200_000},g,1,1,1,1,1,1,1,1,1,1\n", "A")
    with pytest.raises(InputError, match="dice: found 'inf', expected a number"):
        read(f"{head}val,a,g,1,1,1,1,inf,1,1,1,1,1\n", "A")
    with pytest.raises(InputError, match="line 2: dice: found None"):
        read(f"{head}val\n", "A")
