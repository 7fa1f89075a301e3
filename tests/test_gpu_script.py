"""benchmarks/gpu.py, as far as it goes without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks/gpu.py"
SECTIONS = ["environment", "peak", "sweep", "loop", "profile", "recipe"]  # all but the tests, which this is


def call(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_section_gives_figures(tmp_path):
    result = call("--device=cpu", "--smoke", "--seeds=0", f"--json={tmp_path / 'gpu.json'}", "--only", *SECTIONS)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(row["images_per_second"] > 0 and row["tera_operations"] > 0 for row in found["sweep"])
    assert {row["batch"] for row in found["loop"]} == {2, 4}
    assert all(value > 0 for value in found["peak"].values())
    assert sum(found["profile"]["percent"].values()) <= 100.1
    assert [row["seed"] for row in found["recipe"]] == [0]
    assert found["tests"] == {"skipped": "not asked for"}
    assert "share of the bare step" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    result = call()
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 1
    assert "no NVIDIA GPU" in result.stdout
    assert result.stderr == ""
