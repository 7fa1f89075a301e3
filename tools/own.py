"""Make a folder of your own image-mask pairs a dependency of the pipeline: make own FOLDER=data/mine

A folder inside the repository is put under DVC (`dvc add`), so that it is cached and pushed, and present in the copies
of the experiment queue; any other is named by its absolute path. dvc.yaml then lists it as a dependency of download.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from lesionseg.common.text import printable  # noqa: E402
from lesionseg.download.unfetched import all_unfetched  # noqa: E402

SHOWN = 10  # files that a message lists


def listed(pipeline: str, folder: str) -> str:
    """The text of dvc.yaml with the folder among the dependencies of download; unchanged if it is already listed."""
    head, start, rest = pipeline.partition("\n  download:\n")
    stage = re.split(r"\n(?=  \w)", rest, maxsplit=1)[0]
    line = f"      - {json.dumps(folder, ensure_ascii=False)}\n"  # JSON's quotes are valid YAML
    if "    deps:\n" not in stage:
        raise ValueError("no stage download with a list `deps:`")
    if line in stage:
        return pipeline
    return head + start + rest.replace("    deps:\n", "    deps:\n" + line, 1)


def setting(folder: str) -> str:
    """The argument of -S that names the folder, quoted for a shell, and within it for -S if need be."""
    plain = "/" in folder and re.fullmatch(r"[A-Za-z0-9_./-]+", folder)
    quoted = folder if plain else "'" + folder.replace("'", "\\'") + "'"
    return shlex.quote(f"download.folder={quoted}")


def add(root: Path, folder: Path) -> list[str]:
    """Make the folder a dependency; return the files to commit. Raises ValueError if it cannot be one."""
    path = root / "dvc.yaml"
    if not path.is_file():
        raise ValueError(f"{path} is not there; run this at the top of the repository")
    inside = folder.is_relative_to(root) and folder != root
    name = folder.relative_to(root).as_posix() if inside else folder.as_posix()
    if folder == root or root.is_relative_to(folder):
        raise ValueError(
            f"{folder} contains the repository itself; put the pairs into a folder of their own, such as data/mine"
        )
    if "${" in name or not name.isprintable():
        raise ValueError(f"{name!a} has characters that dvc.yaml cannot hold; rename the folder")
    text = listed(path.read_text(encoding="utf-8"), name)
    if absent := all_unfetched(folder):  # DVC would track the pointers, or fail at a broken link without saying why
        more = f"\n… and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        raise ValueError("\n".join(map(printable, absent[:SHOWN])) + more)
    changed = ["dvc.yaml"]
    if inside:
        subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", name], check=True)
        changed += [f"{name}.dvc", (folder.parent.relative_to(root) / ".gitignore").as_posix()]
    path.write_text(text, encoding="utf-8")
    return changed


def main() -> int:
    if len(sys.argv) != 2 or not sys.argv[1] or not Path(sys.argv[1]).expanduser().is_dir():
        found = f"; found {sys.argv[1]}, which is not a directory" if sys.argv[1:] and sys.argv[1] else ""
        print(f"own: name the folder with the pairs, such as: make own FOLDER=data/mine{found}", file=sys.stderr)
        return 1
    root = Path.cwd()
    # `..` is resolved, links are not: they are the user's name for the place.
    folder = Path(os.path.abspath(Path(sys.argv[1]).expanduser()))
    try:
        changed = add(root, folder)
    except subprocess.CalledProcessError as error:
        return error.returncode  # DVC has said why
    except ValueError as error:
        print(f"own: {error}", file=sys.stderr)
        return 1
    name = folder.relative_to(root).as_posix() if len(changed) > 1 else folder.as_posix()
    print(f"{name} is now a dependency of the download stage.")
    if len(changed) == 1:
        print("It is outside the repository: DVC notices changes to it, but does not share it.")
    print(f"Commit {shlex.join(changed)}, then:")
    print(f"  dvc exp run -S download.source=folder -S {setting(name)}")
    print(f"or, to evaluate on it only: dvc exp run -S {setting(name).replace('download.folder', 'download.external')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
