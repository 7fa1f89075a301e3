"""Files that say what the project is agree with each other: version, pins, Python versions, hooks."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED = ("pipeline", "export", "dev")  # extras
REQUIREMENTS = [*PROJECT["dependencies"], *(one for extra in LOCKED for one in PROJECT["optional-dependencies"][extra])]


def read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def normalised(name: str) -> str:
    """As PyPI compares names: https://packaging.python.org/en/latest/specifications/name-normalization/."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_requirement_is_pinned(requirement):
    """What no lock holds is not installed: make and CI install from the locks alone."""
    locks = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("requirements*.lock"))
    pinned = {normalised(name) for name in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", locks, re.MULTILINE)}
    name = re.match(r"[\w.-]+", requirement).group()
    assert normalised(name) in pinned, f"{name} is in no lock: `make lock` pins it"


def test_the_citation_and_the_changelog_name_the_version():
    assert yaml.safe_load(read("CITATION.cff"))["version"] == PROJECT["version"]
    released = re.search(r"^## \[(\d[^]]*)\] - (\d{4}-\d{2}-\d{2})$", read("CHANGELOG.md"), re.MULTILINE)
    assert released.group(1) == PROJECT["version"]
    assert released.group(2) == yaml.safe_load(read("CITATION.cff"))["date-released"].isoformat()


def test_ci_tries_the_oldest_python_and_a_newer_one_and_the_page_on_systems_names_both():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    tried = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert oldest == min(tried)
    assert len(tried) > 1
    for version in tried:
        assert f"Python {version}" in read("docs/systems.md")


def test_hooks_call_what_make_lint_and_make_gate_call():
    """Nothing of its own, and nothing fetched."""
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert f"\t{hook['entry'].removesuffix(' --force-exclude')}" in read("Makefile")
