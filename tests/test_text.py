"""Names from strangers stay names: in files, tables, charts, Markdown, on a terminal."""

import os
import re
import subprocess
from pathlib import Path

import pull_request
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lesionseg.common.errors import InputError
from lesionseg.common.text import LONGEST_ID, LONGEST_MESSAGE, id_problem, markdown, printable
from lesionseg.download import folder
from lesionseg.formats import manifest
from lesionseg.visualize import style

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    [
        "ISIC_0000000",
        "scan 12 (1)",
        "läsion-7",
        "病変_3",
        "a.b",
        "x@2x",
        "scan_$5_$6",
        "[3]",
        "it's",
        "50% & more",
        "#1",
    ],
)
def test_names_that_people_have_are_ids(name):
    assert id_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ('=HYPERLINK("x")', "begins with '='"),
        ("@SUM(1)", "begins with '@'"),
        ("+1", "begins with '\\+'"),
        ("-rf", "begins with '-'"),
        (".hidden", "begins with '.'"),
        ("\tcmd", "unprintable"),
        ("a\x1b[2J", r"unprintable characters \('a\\x1b\[2J'\)"),
        ("a\u202egpj", "unprintable"),  # turns the reading direction
        ("a\udcff", "unprintable"),  # bytes that are no UTF-8
        ("a|b", r"has \| in it"),
        ("<b>", r"has < > in it"),
        ("../a", "begins with '.'"),
        ("a/b\\c", r"has / \\ in it"),
        (" a", "space"),
        ("é" * 101, f"202 bytes long, expected at most {LONGEST_ID}"),
    ],
)
def test_names_that_could_be_taken_for_something_else_are_refused(name, problem):
    assert re.search(problem, id_problem(name))


def test_a_problem_is_one_printable_line_of_bounded_length():
    (problem,) = InputError(f"x\x1b[31m\r\nstage: all is well{'y' * 10**6}").problems
    assert problem.startswith(r"x\x1b[31m\r\nstage: all is well")
    assert problem.isprintable()
    assert len(problem) < LONGEST_MESSAGE + 20
    assert printable("Größe 3 µm…") == "Größe 3 µm…"


@pytest.mark.parametrize(
    "text",
    ["| @team [Approve](https://a.example)", "`code`", "<img src=x>", "www.example.com", "![x](y)", "**a**", "a\nb"],
)
def test_nothing_in_a_cell_is_markdown(text):
    cell = markdown(text)
    assert re.fullmatch(r"<code>([\w .-]|&#\d+;)*</code>", cell)
    assert markdown("train.epochs") == "train.epochs"
    assert markdown("1e-05") == "1e-05"


def test_the_report_of_a_pull_request_shows_parameters_as_text(monkeypatch):
    evil = "| @team [Approve](https://a.example) |\n\n# Approved"
    changed = {"train.network": ("unet", evil), evil: (3, 4), "train.epochs": (3, 4)}
    monkeypatch.setattr(pull_request, "PARAMETERS", ("params.yaml",))
    monkeypatch.setattr(pull_request, "text", lambda commit, path: "")
    monkeypatch.setattr(pull_request, "changes", lambda base, path: ([evil], changed))
    table = pull_request.parameters("main")
    assert "| params.yaml | train.epochs | 3 | 4 |" in table
    assert len(table.splitlines()) == 2 + 4
    assert not re.search(r"@|\[|#(?!\d)", table)


@pytest.mark.parametrize("text", ["scan_$5_$6", "$\\frac{$", "a$^$b"])
def test_charts_draw_a_name_as_it_is(text):
    """Between two $ matplotlib would read a formula, and fail on these."""
    with style.applied():
        figure = Figure()
        figure.text(0, 0, text)
        figure.subplots().set_title(text)
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("name", ["", "none", "../profiles/tiny", "tiny isic2018", "%", "tiny'; touch sprung; '"])
def test_a_profile_that_is_not_there_is_refused_before_anything_runs(tmp_path, name):
    (tmp_path / "profiles").mkdir()
    for profile in ("tiny", "isic2018"):
        (tmp_path / "profiles" / f"{profile}.txt").touch()
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8").replace("exp: env ", "exp: "))
    said = subprocess.run(["make", "exp", f"PROFILE={name}"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 2
    assert said.stdout == "make exp: name one with PROFILE=: isic2018 tiny\n"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "a|b", "-rf"])
def test_such_names_come_in_at_no_door(tmp_path, name):
    for file in (f"{name}.png", f"{name}_mask.png"):
        Image.new("L", (8, 8)).save(tmp_path / file)
    with pytest.raises(InputError, match=r"its name (begins with|has)"):
        folder.find_layout(tmp_path)
    pair = manifest.Pair(name, "a", "b", 8, 8, "0", "0", "training", "folder")
    manifest.write(tmp_path, [pair])
    with pytest.raises(InputError, match=r"line 2: the id .* (begins with|has)"):
        manifest.read(tmp_path)


def test_make_gives_dvc_an_index_cache_of_its_own(tmp_path):
    """DVC's own, in /var/tmp, is written by everyone and unpickled."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/dvc").write_text('#!/bin/sh\necho "$DVC_SITE_CACHE_DIR"\n')
    (tmp_path / ".venv/bin/dvc").chmod(0o755)
    for name in ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock"))):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"))
    (tmp_path / ".venv/.installed").touch()
    (tmp_path / ".git").mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    said = subprocess.run(["make", "repro"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    place = Path(said.stdout.splitlines()[-1])
    assert place == tmp_path / ".cache/lesionseg-dvc"
    assert place.stat().st_mode & 0o777 == 0o700
