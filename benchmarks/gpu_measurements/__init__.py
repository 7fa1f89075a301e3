"""The parts of benchmarks/gpu.py: one module a question, each usable alone.

They measure the library beside this folder, installed or not: a machine with a card often has its own torch, into
which nothing else is installed.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "src"))
