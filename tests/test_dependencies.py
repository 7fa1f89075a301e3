"""dvc.yaml lists as a stage's code dependencies exactly the files its script imports, directly or not: a folder where
it imports all of it, single files elsewhere."""

from pathlib import Path

import pytest
import yaml
from import_closure import REPOSITORY, closure

STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_import_closure(stage):
    named = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))]
    listed = [file for dep in named for file in code_files(REPOSITORY / dep)]
    assert len(listed) == len(set(listed)), "a file is named twice, as a file and in its folder"
    assert set(listed) == closure(REPOSITORY / "stages" / f"{stage}.py")


def code_files(dep: Path) -> list[str]:
    """The code a dependency stands for: a file, or the modules and templates of a folder."""
    files = [dep] if dep.is_file() else [file for file in dep.rglob("*") if file.suffix in {".py", ".j2"}]
    return [file.relative_to(REPOSITORY).as_posix() for file in files]


COMMANDS = tuple(
    f"src/lesionseg/{room}" for room in ("__main__.py", "compare/", "demo/", "export/", "predict/")
)  # no stage's


def test_every_library_file_belongs_to_a_stage():
    used = {
        file
        for stage in STAGES.values()
        for dep in stage["deps"]
        if dep.startswith("src/")
        for file in code_files(REPOSITORY / dep)
    }
    library = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "src").rglob("*.py")}
    assert {path for path in library if not path.startswith(COMMANDS)} <= used, "files that no stage imports"
