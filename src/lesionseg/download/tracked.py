"""The user's own data must be a dependency in dvc.yaml, so that DVC notices changes to it."""

import os
import shlex
from pathlib import Path

import yaml

from lesionseg.common.errors import InputError


def require_tracked(setting: str, folder: str, pipeline: Path = Path("dvc.yaml")) -> None:
    """Refuse a folder that the download stage does not depend on: later changes to it would go unnoticed.

    `setting` is the parameter that names it. Without a pipeline file nothing is checked.
    """
    if not pipeline.is_file():
        return
    if folder.startswith("~"):
        raise InputError(
            f"params.yaml: {setting}: found {folder}; ~ is not expanded there, write {Path(folder).expanduser()}"
        )
    named = os.path.normpath(folder)
    if named.partition(os.sep)[0] == "..":
        raise InputError(
            f"params.yaml: {setting}: found {folder}, a relative path out of the repository, which leads elsewhere in "
            f"the copies that `dvc exp run --temp` and the queue use; write the absolute path: {Path(folder).resolve()}"
        )
    stage = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]["download"]
    listed = [os.path.normpath(dep if isinstance(dep, str) else next(iter(dep))) for dep in stage.get("deps", [])]
    if not any(Path(named).is_relative_to(dep) for dep in listed):
        raise InputError(
            f"params.yaml: {setting}: found {folder}, which is not a dependency of the download stage in dvc.yaml, so "
            f"DVC would not notice changes to it; `make own FOLDER={shlex.quote(folder)}` makes it one"
        )
