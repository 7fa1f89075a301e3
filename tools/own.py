"""Make a folder of own image-mask pairs a dependency of the pipeline: make own FOLDER=data/mine

Inside the repository the folder is put under DVC (`dvc add`), so that it is cached, pushed, and there in a queue's
copies; elsewhere its absolute path is named. Then dvc.yaml lists it among the dependencies of the stage download.
"""

import re
import subprocess
import sys
from pathlib import Path


def listed(pipeline: str, folder: str) -> str:
    """The text of dvc.yaml with the folder among the dependencies of download; as it was where it is there already."""
    head, start, rest = pipeline.partition("\n  download:\n")
    stage = re.split(r"\n(?=  \w)", rest, maxsplit=1)[0]
    line = f'      - "{folder}"\n'
    if not start or line in stage:
        return pipeline
    return head + start + rest.replace("    deps:\n", "    deps:\n" + line, 1)


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).expanduser().is_dir():
        print("own: name the folder with the pairs, such as: make own FOLDER=data/mine", file=sys.stderr)
        return 1
    root, folder = Path.cwd(), Path(sys.argv[1]).expanduser().absolute()
    name = folder.as_posix()
    if folder.is_relative_to(root):
        name = folder.relative_to(root).as_posix()
        added = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", name], check=False)
        if added.returncode:
            return added.returncode
    path = root / "dvc.yaml"
    path.write_text(listed(path.read_text(encoding="utf-8"), name), encoding="utf-8")
    print(f"{name} is a dependency of the stage download. Commit dvc.yaml and {name}.dvc, then:")
    print(f"  dvc exp run -S download.source=folder -S download.folder={name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
