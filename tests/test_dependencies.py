"""dvc.yaml lists as a stage's code dependencies exactly the files its script imports, directly or not: a folder where
it imports all of it, single files elsewhere."""

import ast
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
ROOTS = (REPOSITORY / "src", REPOSITORY / "stages")


def module_files(name: str) -> list[Path]:
    """The files that importing `name` runs: the module and every package above it. Empty if it is not ours."""
    parts = name.split(".")
    for root in ROOTS:
        files = []
        for depth in range(1, len(parts) + 1):
            path = root.joinpath(*parts[:depth])
            if (path / "__init__.py").is_file():
                files.append(path / "__init__.py")
            elif path.with_suffix(".py").is_file():
                files.append(path.with_suffix(".py"))
            else:
                break  # the rest of the name is an attribute of the last module
        if files:
            return files
    return []


def imported_names(path: Path) -> set[str]:
    """Every dotted name the file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed by this test; write them absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def closure(script: Path) -> set[str]:
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in imported_names(path) for file in module_files(name)]
            # Package data of the same name (a page template, say) is part of its module.
            found.update(data for data in path.parent.glob(f"{path.stem}.*") if data.suffix not in {".py", ".pyc"})
    return {path.relative_to(REPOSITORY).as_posix() for path in found}


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


def test_every_library_file_belongs_to_a_stage():
    used = {
        file
        for stage in STAGES.values()
        for dep in stage["deps"]
        if dep.startswith("src/")
        for file in code_files(REPOSITORY / dep)
    }
    library = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "src").rglob("*.py")}
    assert library <= used, "files that no stage imports"
