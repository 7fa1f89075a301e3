"""Which photographs are predicted, what their results are called, and that none of these replaces what is not ours."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.images.naming import EXTENSIONS

TABLE, RECORD, COCO = "lesions.csv", "run.json", "coco.json"
ENDINGS = {  # of the files of one photograph, after its name
    "segmentation": "_segmentation.png",
    "overlay": "_overlay.jpg",
    "probabilities": "_probabilities.png",
    "numbers": "_probabilities.npy",
    "outlines": "_outlines.geojson",
}

Targets = Mapping[Path, Mapping[str, Path]]  # photograph -> kind, a key of ENDINGS -> file


def find(photographs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The files to predict, those named and every image below a folder that is named, and what their results are
    called: the path below that folder without extension; of files that would share it, with extension and folder.

    An output directory inside such a folder is passed over. Raises InputError for what is not there.
    """
    below: dict[Path, Path] = {}  # file -> the folder its name starts at
    problems = []
    for path in photographs:
        if path.is_dir():
            if path.resolve() == output.resolve():
                problems.append(
                    f"--output: {output} is the folder of the photographs; name another, such as {output}/masks"
                )
                continue
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and not file.is_dir())
            if path.resolve() in output.resolve().parents:
                files = [file for file in files if output.resolve() not in file.resolve().parents]
            below |= {file: path for file in files if file not in below}
            if not files:
                problems.append(f"{path}: no image in it ({', '.join(EXTENSIONS)})")
        elif path.exists():
            below.setdefault(path, path.parent)
        else:
            problems.append(f"{path}: no such file or directory")
    if problems:
        raise InputError(problems)
    short = {path: path.relative_to(folder).with_suffix("") for path, folder in below.items()}
    times = Counter(short.values())
    return {
        path: short[path] if times[short[path]] == 1 else Path(folder.resolve().name, path.relative_to(folder))
        for path, folder in below.items()
    }


def targets(names: Mapping[Path, Path], output: Path, kinds: Iterable[str]) -> Targets:
    """The files to write for each photograph."""
    return {path: {kind: output / f"{name}{ENDINGS[kind]}" for kind in kinds} for path, name in names.items()}


def check(output: Path, wanted: Targets, of_the_set: Sequence[str], inputs: Iterable[Path]) -> None:
    """Raise InputError where something to be written is an input, is written twice, or is there and not of this
    command: only what the run.json beside it lists is replaced. `of_the_set`: names of files that all share."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file, expected a directory")
    ours = {path.resolve() for path in written_before(output)}
    photographs, others = {path.resolve() for path in wanted}, {path.resolve() for path in inputs}
    files = [path for kinds in wanted.values() for path in kinds.values()]
    problems, seen = [], set()
    for path in [*files, *(output / name for name in of_the_set)]:
        where = path.resolve()
        if where in photographs:
            problems.append(f"{path}: is one of the photographs and would be replaced; choose another --output")
        elif where in others:
            problems.append(f"{path}: is one of the true masks and would be replaced; choose another --output")
        elif where in seen:
            problems.append(f"{path}: two photographs would get this name; rename one")
        elif path.exists() and where not in ours:
            problems.append(f"{path}: is there and not of an earlier run of this command; choose another --output")
        seen.add(where)
    if problems:
        raise InputError(problems)


def outdated(names: Mapping[Path, Path], output: Path, kinds: Iterable[str]) -> list[Path]:
    """What earlier runs wrote for these photographs, or for the set, of `kinds` that this one does not write: it would
    lie beside masks that it does not belong to."""
    others = ENDINGS.keys() - set(kinds)
    left = {path for files in targets(names, output, others).values() for path in files.values()}
    if "outlines" in others:
        left.add(output / COCO)
    return [path for path in written_before(output) if path in left and path.is_file()]


def written_before(output: Path) -> list[Path]:
    """The files that earlier runs say they wrote to `output`; none where run.json is missing or something else's.

    What it says lies elsewhere is left out."""
    try:
        names = json.loads((output / RECORD).read_text(encoding="utf-8"))["written"]
        files = [output / name for name in (*names, TABLE, RECORD)]
        inside = output.resolve()
        return [path for path in files if path.resolve().is_relative_to(inside) and path.is_relative_to(output)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a stranger's, in a folder that came unpacked
        return []
