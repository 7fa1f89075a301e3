"""Own data is a dependency that dvc.yaml names, so that DVC notices changes of it."""

import os
import shlex
from pathlib import Path

import yaml

from lesionseg.common.errors import InputError


def require_tracked(setting: str, folder: str, pipeline: Path = Path("dvc.yaml")) -> None:
    """Refuse a folder that the stage download does not depend on: a later change of it would go unnoticed.

    `setting` is the parameter that names it. Without a pipeline file there is nothing to notice changes, and no check.
    """
    if not pipeline.is_file():
        return
    if folder.startswith("~"):
        raise InputError(
            f"params.yaml: {setting}: found {folder}; ~ is not expanded there: name it as {Path(folder).expanduser()}"
        )
    named = os.path.normpath(folder)
    if named.partition(os.sep)[0] == "..":
        raise InputError(
            f"params.yaml: {setting}: found {folder}, a relative path out of the repository, which is another place in "
            f"the copies where `dvc exp run --temp` and the queue run; name it absolutely: {Path(folder).resolve()}"
        )
    stage = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]["download"]
    listed = [os.path.normpath(dep if isinstance(dep, str) else next(iter(dep))) for dep in stage.get("deps", [])]
    if not any(Path(named).is_relative_to(dep) for dep in listed):
        raise InputError(
            f"params.yaml: {setting}: found {folder}, which is no dependency of the stage download in dvc.yaml, so DVC "
            f"would not notice a change of it; `make own FOLDER={shlex.quote(folder)}` makes it one"
        )
