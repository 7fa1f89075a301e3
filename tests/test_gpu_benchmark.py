"""benchmarks/gpu.py without a card: every part, at a size at which only the arithmetic around them counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks/gpu.py"


def gpu(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1"}  # compiling takes minutes here
    command = [sys.executable, str(BENCHMARK), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_part_is_measured_and_its_measurements_fit_together(tmp_path):
    done = gpu("--device", "cpu", "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu-measurements.json").read_text())
    assert [json.loads(line) for line in done.stdout.splitlines()] == rows
    parts = {part: [row for row in rows if row["part"] == part] for part in dict.fromkeys(row["part"] for row in rows)}
    assert list(parts) == ["environment", "matrix rate", "bare step", "loop", "recipe"]
    at_most = {row["precision"]: row["images_per_second_at_most"] for row in parts["matrix rate"]}
    for row in parts["bare step"]:
        assert row["share_of_matrix_rate"] == pytest.approx(row["images_per_second"] / at_most[row["precision"]])
    changed = [{row[key] for row in parts["bare step"]} for key in ("precision", "channels_last", "deterministic")]
    assert changed == [{"bf16", "fp32"}, {True, False}, {True, False}]
    usual, loop = parts["bare step"][0], parts["loop"][0]
    assert loop["below_bare_step"] == pytest.approx(1 - loop["images_per_second"] / usual["images_per_second"])
    assert [row["seed"] for row in parts["recipe"]] == [0, 1, 2]


def test_operations_of_the_published_network(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    import gpu

    assert gpu.operations(64, 256) == pytest.approx(289e9, rel=0.005)


def test_without_a_card_it_is_one_line(tmp_path):
    done = gpu("--device", "cuda:99", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("gpu: error: ")
    assert not list(tmp_path.iterdir())
