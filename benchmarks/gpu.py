"""Everything about this project on an NVIDIA card, in one call: what the card can do, and how near training comes.

    python benchmarks/gpu.py --data data/processed --out gpu-report

docs/gpu.md says what each part measures and how to read it. It needs torch and the library's own dependencies, not
DVC. Results are written after every measurement to <out>/report.json and report.md: a run that is cut off keeps them.
"""

import argparse
import sys
from pathlib import Path

import torch
from gpu_measurements import card
from gpu_measurements.report import Report

from lesionseg import device


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="directory for the results")
    parser.add_argument("--minutes", type=float, default=9, help="no measurement starts that would end later")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<index>, or cpu to try the script")
    arguments = parser.parse_args()

    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(f"gpu: error: torch {torch.__version__} finds no NVIDIA card; it is what this measures", file=sys.stderr)
        return 1
    device.use_deterministic_algorithms(True)
    hardware = device.choose(arguments.device)
    report = Report(arguments.out, arguments.minutes * 60, {"command": " ".join(sys.argv)})
    report.measure("environment", {}, lambda: card.environment(hardware), 5)
    for name in card.formats(hardware):
        report.measure("matrix rate", {"format": name}, lambda: card.matrix_rate(name, hardware), 5)  # noqa: B023
    report.measure("memory rate", {}, lambda: card.memory_rate(hardware), 5)
    print(report.table())
    return 1 if report.content["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
