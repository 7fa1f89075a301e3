"""`dvc plots show` and `dvc plots diff` draw every plot that dvc.yaml declares, from files in git alone."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluated import write_evaluation
from lesionseg.common.files import read_csv

REPOSITORY = Path(__file__).parents[1]
DECLARED = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
PLOTS = {
    name: properties or {}
    for entry in DECLARED
    for name, properties in ([(entry, None)] if isinstance(entry, str) else entry.items())
}


def call(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def plots(folder: Path, *arguments: str) -> dict[str, list[dict]]:
    answer = json.loads(call(folder, sys.executable, "-m", "dvc", "plots", *arguments, "--json"))
    assert "errors" not in answer
    return answer["data"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A git repository without data, cache or remote, with the results of two revisions."""
    folder = tmp_path_factory.mktemp("clone")
    call(folder, "git", "init", "--quiet")
    call(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    shutil.copytree(REPOSITORY / ".dvc/plots", folder / ".dvc/plots")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"plots": DECLARED}, sort_keys=False), encoding="utf-8")
    for splits in ({"train": 2, "val": 5}, {"train": 2, "val": 6, "official_test": 3}):
        evaluation = tmp_path_factory.mktemp("evaluation")
        write_evaluation(evaluation, splits, size=32)
        shutil.copytree(evaluation / "plots", folder / "plots", dirs_exist_ok=True)
        for name in PLOTS:
            if name.endswith(".png"):
                (folder / name).write_bytes(b"\x89PNG" + bytes(len(splits)))
        call(folder, "git", "add", "--all")
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        call(folder, "git", *identity, "commit", "--quiet", "--message=results")
    return folder


@pytest.fixture(scope="module")
def shown(clone):
    return plots(clone, "show")


@pytest.fixture(scope="module")
def compared(clone):
    return plots(clone, "diff", "HEAD~1", "HEAD")


def test_every_declared_plot_is_shown(shown):
    assert set(shown) == set(PLOTS)
    for name, (plot,) in shown.items():
        assert plot["type"] == ("image" if name.endswith(".png") else "vega")


def test_every_declared_plot_lays_two_revisions_side_by_side(compared):
    assert set(compared) == set(PLOTS)
    for name, drawn in compared.items():
        assert {revision for plot in drawn for revision in plot["revisions"]} == {"HEAD~1", "HEAD"}, name


def fields(specification) -> set[str]:
    """Every field that encodings and transforms of a Vega-Lite specification name."""
    if isinstance(specification, list):
        return set().union(*map(fields, specification))
    if not isinstance(specification, dict):
        return set()
    own = {specification["field"]} if isinstance(specification.get("field"), str) else set()
    computed = re.findall(r"datum(?:\.(\w+)|\['(\w+)'\])", str(specification.get("calculate", "")))
    return own.union({first or second for first, second in computed}, *map(fields, specification.values()))


def made(specification) -> set[str]:
    """Every field that transforms of a specification make."""
    if isinstance(specification, list):
        return set().union(*map(made, specification))
    if not isinstance(specification, dict):
        return set()
    own = {specification["as"]} if isinstance(specification.get("as"), str) else set()
    return own.union(*map(made, specification.values()))


@pytest.mark.parametrize("name", [name for name in PLOTS if not name.endswith(".png")])
def test_templates_are_filled_and_name_fields_that_exist(compared, name):
    (plot,) = compared[name]
    assert "<DVC_METRIC" not in json.dumps(plot["content"])
    specification = dict(plot["content"])
    points = specification.pop("data")["values"]
    assert {point["rev"] for point in points} == {"HEAD~1", "HEAD"}
    rest = json.loads(json.dumps(specification))
    for layer in rest.get("layer", []):
        if "data" in layer:  # a reference line with points of its own
            points = points + layer["data"]["values"]
    have = {field for point in points for field in point}
    known = have | made(rest) | {"smooth", "pivot_field"}
    assert fields(rest) <= known


def test_the_confusion_template_sees_every_cell_of_every_split(clone, shown):
    (plot,) = shown["plots/confusion.csv"]
    cells = plot["content"]["data"]["values"]
    assert len(cells) == 2 * 4
    rows = read_csv(clone / "plots/confusion.csv")
    assert sorted(int(cell["count"]) for cell in cells) == sorted(int(row["count"]) for row in rows)


@pytest.mark.parametrize("path", sorted((REPOSITORY / ".dvc/plots").glob("*.json")), ids=lambda path: path.stem)
def test_every_template_is_used(path):
    assert path.stem in {properties.get("template") for properties in PLOTS.values()}


def test_every_table_and_picture_of_the_evaluation_is_declared():
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    tracked = {
        path
        for name in stages
        for entry in stages[name].get("plots", [])
        for path, options in entry.items()
        if options.get("cache") is False
    }
    sources = {file for properties in PLOTS.values() for file in _files(properties)} | set(PLOTS)
    assert {path for path in tracked if path.startswith("plots/")} <= sources


def _files(properties: dict) -> list[str]:
    return list(properties["y"]) if isinstance(properties.get("y"), dict) else []
