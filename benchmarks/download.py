"""Requests, bytes and time of the official source: chosen members, or every member.

    python benchmarks/download.py [--scale 1/32] [--latency 0.05]

A server on 127.0.0.1 holds a training set of 2,594 pairs in the official layout: images of about 4.3 MB (log-normal)
and masks of about 10 KB, all multiplied by `--scale`, as is the longest range per request. So the numbers of requests
are those of the real archives, and bytes are given as a share of the total; only the two directories do not shrink
with the scale, which makes the shares slightly too large. `--latency` is how long the server waits before each answer.
The last column repeats the transfer with one connection reset half-way.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
import zipfile
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from lesionseg.download import archive, isic2018
from lesionseg.download.http_range import RetryPolicy
from loopback import Fault, Request, Server

TRAINING = isic2018.SETS["training"]
WAYS = {"500 pairs": 500, "2,594 pairs": None}  # download.limit


def build(folder: Path, scale: Fraction) -> dict[str, Path]:
    """Write the two archives: stored members of random bytes."""
    chance = random.Random(0)
    noise = chance.randbytes(64 << 20)
    files = {}
    for official, suffix, mean in ((TRAINING.images, ".jpg", 4_304_300), (TRAINING.masks, "_segmentation.png", 10_400)):
        path = folder / f"{official.name}.zip"
        with zipfile.ZipFile(path, "w") as file:
            for number in range(TRAINING.pairs):
                length = max(1, int(mean * scale * chance.lognormvariate(-0.32, 0.8)))
                start = chance.randrange(len(noise))
                content = (
                    (noise[start:] + noise)[:length] if start + length > len(noise) else noise[start : start + length]
                )
                file.writestr(f"{official.name}/ISIC_{number:07d}{suffix}", content)
        files[path.name] = path
    return files


def measure(files: dict[str, Path], limit: int | None, latency: float, reset: bool) -> dict[str, float]:
    """Fetch into an empty store and count."""
    half = sum(path.stat().st_size for path in files.values()) * (1 if limit is None else limit / TRAINING.pairs) / 2
    broken = False

    def fault(request: Request, index: int) -> Fault:
        nonlocal broken
        if not reset or broken or server.sent <= half:
            return Fault()
        broken = True
        return Fault(cut=(request.range[1] - request.range[0]) // 2, reset=True)

    with tempfile.TemporaryDirectory() as folder, Server(files, fault) as server:
        server.latency = latency
        target = Path(folder, "raw")
        target.mkdir()
        begun = time.perf_counter()
        origin = isic2018.Origin(base_url=server.url, policy=RetryPolicy(backoff=0.1))
        isic2018.fetch(target, isic2018.Choice(limit), origin, work=Path(folder, "store"))
        seconds = time.perf_counter() - begun
        assert broken == reset
        return {"requests": len(server.requests), "bytes": server.sent, "s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=Fraction, default=Fraction(1, 32), help="of the sizes of files (1/32)")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer (0.05)")
    arguments = parser.parse_args()
    logging.disable()  # warnings that these are not the official archives
    archive.LONGEST_RUN = int(archive.LONGEST_RUN * arguments.scale)
    with tempfile.TemporaryDirectory() as folder:
        files = build(Path(folder), arguments.scale)
        total = sum(path.stat().st_size for path in files.values())
        print(f"archives: {total:,} bytes (scale {arguments.scale}), latency {arguments.latency * 1000:.0f} ms")
        print(f"{'':28} {'requests':>8} {'bytes':>13} {'share':>7} {'seconds':>8} {'with a reset':>13}")
        for name, limit in WAYS.items():
            plain = measure(files, limit, arguments.latency, reset=False)
            broken = measure(files, limit, arguments.latency, reset=True)
            print(
                f"{name:28} {plain['requests']:8,} {plain['bytes']:13,} {plain['bytes'] / total:7.2%} "
                f"{plain['s']:8.1f} {broken['bytes'] / total:13.2%}"
            )


if __name__ == "__main__":
    main()
