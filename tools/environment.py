"""Write environment.yaml: for each stage, the pinned versions of the packages whose arithmetic shows in its output.

The stages track these versions as parameters, so that `dvc status` names an upgrade and only the stages it affects run
again. `make lock` calls this after pinning.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from import_closure import REPOSITORY, packages

STAGES = tuple(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
# import name -> distribution, of the packages that compute pixels, numbers or pictures. Packages that only read
# settings, show progress or move bytes cannot change a result.
COMPUTING = {
    "PIL": "pillow",
    "albumentations": "albumentations",
    "cv2": "opencv-python-headless",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
HEADER = """\
# The versions of the packages whose arithmetic shows in each stage's output, written by `make lock`: parameters like
# those of params.yaml, so that an upgrade re-runs the stages it touches and shows in `dvc params diff`.
"""


def pinned(lock: Path) -> dict[str, str]:
    """Distribution -> version, from a requirements file that pins with ==."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s+;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def environment(locks: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Stage -> distribution -> version, of the computing packages that the stage's code imports."""
    versions = {package: version for lock in locks for package, version in pinned(lock).items()}
    return {
        stage: {
            package: versions[package]
            for package in sorted(
                COMPUTING[name] for name in packages(REPOSITORY / "stages" / f"{stage}.py") & set(COMPUTING)
            )
        }
        for stage in STAGES
    }


def main() -> None:
    lines = [HEADER]
    for stage, versions in environment(REPOSITORY.glob("requirements*.lock")).items():
        lines.append(f"{stage}:\n")
        lines += [f'  {package}: "{version}"\n' for package, version in versions.items()]
    (REPOSITORY / "environment.yaml").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
