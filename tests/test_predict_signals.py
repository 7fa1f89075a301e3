"""`lesionseg predict` as a process that is ended halfway through a folder: by Ctrl-C, by `kill`, or with no warning."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from lesionseg.__main__ import main
from tiny_data import REPOSITORY, write_undecided_model

PHOTOGRAPHS, BEFORE = 12, 3  # how many there are, and whose masks are written before the signal
WORKERS = 2

# Of each mask half is written, then the rest once a byte comes in, or none ever will.
PROGRAM = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY / "src")!r})
from pathlib import Path
from lesionseg.__main__ import main

def write_in_halves(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        os.read(0, 1)
        file.write(content[len(content) // 2 :])

Path.write_bytes = write_in_halves
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started with & come with Ctrl-C ignored
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command line without its output."""
    folder = tmp_path_factory.mktemp("world")
    model = write_undecided_model(folder / "weights.safetensors", 32, images=4)
    random = np.random.default_rng(0)
    for number in range(PHOTOGRAPHS):
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
        coarse.resize((90, 70), Image.Resampling.NEAREST).save(folder / f"{number:02d}.png")
    return ["predict", str(folder), "--outlines", "--workers", str(WORKERS), "--device", "cpu", "--model", str(model)]


def ended(command, output, number):
    """Exit code and what was said, the signal sent with BEFORE masks written and others half."""
    line = [sys.executable, "-c", PROGRAM, *command, "--output", str(output)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"x" * BEFORE)
        process.stdin.flush()
        patience = time.monotonic() + 300
        while len(masks(output)) < BEFORE or not temporary(output):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < patience
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate()[1].decode()
    return process.returncode, said


def masks(output):
    return {path.name.removesuffix("_segmentation.png") for path in output.glob("[0-9]*_segmentation.png")}


def temporary(output):
    return list(output.rglob("*.tmp"))


def all_can_be_read(output):
    for path in output.iterdir():
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                assert image.size == (90, 70)
        elif path.suffix in (".json", ".geojson"):
            json.loads(path.read_text(encoding="utf-8"))


def recorded(output):
    """The photographs that the table, coco.json and run.json tell of, which are the same."""
    with open(output / "lesions.csv", encoding="utf-8") as file:
        rows = [row["mask"].removesuffix("_segmentation.png") for row in csv.DictReader(file)]
    images = json.loads((output / "coco.json").read_text(encoding="utf-8"))["images"]
    files = json.loads((output / "run.json").read_text(encoding="utf-8"))["files"]
    assert [image["file_name"] for image in images] == list(files)
    assert [name.rpartition("/")[2].removesuffix(".png") for name in files] == rows == sorted(rows)
    assert set(files.values()) == {"done"}
    return set(rows)


def completed(command, output):
    assert main([*command, "--output", str(output)]) == 0
    assert not temporary(output)
    all_can_be_read(output)
    assert len(recorded(output)) == len(masks(output)) == PHOTOGRAPHS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_files_and_a_record_of_them(command, tmp_path, number):
    code, said = ended(command, tmp_path / "out", number)
    assert code == 130
    assert said.strip().splitlines()[-1] == "predict: interrupted; every file written so far is whole"
    assert "Traceback" not in said
    assert not temporary(tmp_path / "out")
    all_can_be_read(tmp_path / "out")
    done = masks(tmp_path / "out")
    assert recorded(tmp_path / "out") == done
    assert BEFORE <= len(done) < PHOTOGRAPHS
    completed(command, tmp_path / "out")


def test_a_kill_leaves_no_half_file_under_a_final_name(command, tmp_path):
    completed(command, tmp_path / "out")
    for mask in masks(tmp_path / "out"):
        (tmp_path / "out" / f"{mask}_segmentation.png").unlink()
    assert ended(command, tmp_path / "out", signal.SIGKILL)[0] == -signal.SIGKILL
    assert temporary(tmp_path / "out")
    all_can_be_read(tmp_path / "out")
    assert BEFORE <= len(masks(tmp_path / "out")) < PHOTOGRAPHS
    assert not list((tmp_path / "out").glob("lesions.csv")), (
        "a table of the run before would not be true of these masks"
    )
    completed(command, tmp_path / "out")
