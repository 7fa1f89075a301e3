"""The tests that need a card, in a process of their own."""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from gpu_measurements import REPOSITORY
from gpu_measurements.report import Missing, Row


def run(seconds: float, log: Path) -> Row:
    """Run `pytest -m cuda` for `seconds` at most, its output to the file `log`.

    Raises Missing without what they need, RuntimeError where a test fails.
    """
    if absent := [package for package in ("pytest", "albumentations") if find_spec(package) is None]:
        raise Missing(f"the tests need {' and '.join(absent)}, not installed here")
    # only files with such a test: others need packages that a machine lent for its card may lack
    files = [str(path) for path in sorted((REPOSITORY / "tests").glob("test_*.py")) if "mark.cuda" in path.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        # another torch than the pinned one may warn of what it will change: no reason to fail here
        options = ["-m", "cuda", "-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={results}"]
        paths = os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *files],
                cwd=REPOSITORY,
                env=os.environ | {"PYTHONPATH": paths},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"not done after {seconds:.0f} s: {_tail(error.stdout)}") from None
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        if not results.exists():
            raise RuntimeError(f"pytest exited {done.returncode}: {_tail(done.stdout + done.stderr)}")
        suite = ElementTree.parse(results).getroot().find("testsuite")
    row: Row = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    if row["failures"] or row["errors"]:
        broken = [case.get("name") for case in suite.iter("testcase") if {"failure", "error"} & {c.tag for c in case}]
        raise RuntimeError(f"{row['failures'] + row['errors']} of {row['tests']} tests failed: {', '.join(broken)}")
    row["passed"] = row["tests"] - row["skipped"]
    return row | {"seconds": float(suite.get("time"))}


def _tail(output: str | bytes | None) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return " / ".join(text.strip().splitlines()[-3:])
