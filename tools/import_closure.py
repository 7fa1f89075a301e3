"""Which files a stage's script runs, and which packages they use, from their imports; nothing is executed."""

import ast
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROOTS = (REPOSITORY / "src", REPOSITORY / "stages")


def module_files(name: str) -> list[Path]:
    """The files that run when `name` is imported: the module and every package above it. Empty if it is not ours."""
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
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed here; write them absolute"
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
            found.update(
                data for data in path.parent.glob(f"{path.stem}.*") if data.suffix not in {".py", ".pyi", ".pyc"}
            )
    return {path.relative_to(REPOSITORY).as_posix() for path in found}


def packages(script: Path) -> set[str]:
    """The top-level names of everything else that the files of the closure import: "torch", "PIL", "json", …"""
    files = [REPOSITORY / path for path in closure(script) if path.endswith(".py")]
    names = {name.partition(".")[0] for path in files for name in imported_names(path)}
    return {name for name in names if not module_files(name)}
