"""Snippets of the documentation run; its links lead somewhere; its commands name what there is."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml
from dvc.cli import DvcParserError, parse_args

from evaluated import write_evaluation
from lesionseg.__main__ import COMMANDS, _parse

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMANDED = [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"]
PARAMETERS = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
TARGETS = re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_snippets_of_extending_run_in_order(tmp_path, monkeypatch):
    write_evaluation(tmp_path, {"train": 2, "val": 2}, size=32)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/extending.md").read_text("utf-8"), re.M | re.S)
    assert len(snippets) == 3
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/extending.md", "exec"), names)
    assert names["mask"].shape == (32, 32)
    assert any(parameter.grad is not None for parameter in names["model"].network.parameters())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        if target != "plots/gallery.png":  # written by the pipeline
            assert (page.parent / target).exists(), target


def commands(page: Path) -> list[list[str]]:
    """The words of every command on a page, in code blocks and in sentences."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [*re.findall(r"^    (.*)$", text, re.MULTILINE), *"".join(fenced).splitlines()]
    lines += [
        re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]
    found = []
    for line in lines:
        line = re.sub(r"\$\(.*?\)", "", line.removeprefix("$ "))
        line = re.sub(r"<[^>]*>", "NAME", line)
        for part in line.split("&&"):
            if re.match(r" *(make|dvc|lesionseg|python) [a-z.-]", part) and "…" not in part:
                found.append(shlex.split(part, comments=True))
    return found


def unknown(words: list[str]) -> str:
    """What a command names that there is not; nothing where all is there."""
    tool, *rest = words
    if tool == "make":
        named = dict(word.split("=", 1) for word in rest if "=" in word)
        lost = [word for word in rest if "=" not in word and word not in TARGETS]
        profile = named.get("PROFILE", "tiny")
        return ", ".join(lost) or ("" if (REPOSITORY / f"profiles/{profile}.txt").exists() else profile)
    if tool == "python":
        return "" if rest[0].startswith("-") or (REPOSITORY / rest[0]).exists() else rest[0]
    try:
        if tool == "lesionseg":
            if len(rest) > 1 and rest[0] in COMMANDS:
                _parse(rest)
            return "" if rest[0] in COMMANDS else rest[0]
        if len(rest) > 1 or rest[0] in ("repro", "checkout", "status"):  # "dvc exp" in a sentence is no command yet
            parse_args(rest)
    except (DvcParserError, SystemExit):
        return " ".join(rest)
    for flag, setting in itertools.pairwise(rest):
        group, _, key = setting.partition("=")[0].partition(".")
        if flag == "-S" and key not in PARAMETERS.get(group, {}) and group != "group":
            return setting
    return ""


@pytest.mark.parametrize("page", COMMANDED, ids=lambda page: page.name)
def test_commands_name_what_there_is(page, capfd):
    lost = [f"{' '.join(words)}: {missing}" for words in commands(page) if (missing := unknown(words))]
    assert not lost


@pytest.mark.parametrize("page", COMMANDED, ids=lambda page: page.name)
def test_parameters_that_a_page_names_are_parameters(page):
    named = re.findall(rf"`({'|'.join(PARAMETERS)})\.(\w+)(?:[=:`])", page.read_text(encoding="utf-8"))
    assert [f"{group}.{key}" for group, key in named if key not in PARAMETERS[group]] == []


def test_the_check_of_commands_finds_what_is_not_there():
    for wrong in (
        "make exp PROFILE=quik",
        "make rapro",
        "dvc exp run -S train.epoch=3",
        "dvc exp shew --all",
        "lesionseg predict a --output b --model c --overley",
        "lesionseg compere A B",
        "python benchmarks/none.py",
    ):
        assert unknown(shlex.split(wrong)), wrong
