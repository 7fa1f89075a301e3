"""After a `git merge` of two branches that both ran the pipeline, make one consistent state: make merge

Resolve code and parameters by hand first. dvc.lock, metrics/ and plots/ are settled here, stage by stage: if only one
side ran a stage, its entry and its small results are taken; if both did, or if what was taken does not fit the merged
code, `dvc repro` runs the stage again. Data and models come from DVC's cache.
"""

import subprocess
import sys
from pathlib import Path

import documents
import gate
import yaml

from lesionseg.common.errors import InputError
from lesionseg.common.text import printable

RESULTS = ("dvc.lock", "metrics/", "plots/")


def git(*arguments: str, check: bool = True) -> str:
    found = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if check and found.returncode:
        raise SystemExit(f"merge: git {' '.join(arguments)}: {found.stderr.strip()}")
    return found.stdout.strip()


def locked(commit: str) -> dict:
    """The stages of a commit's dvc.lock."""
    return stages_of(git("show", f"{commit}:dvc.lock", check=False), f"dvc.lock of {commit[:9]}")


def stages_of(text: str, name: str) -> dict:
    """The stages in the text of a dvc.lock or dvc.yaml."""
    try:
        stages = documents.mapping(text, name).get("stages", {})
    except InputError as error:
        raise SystemExit(f"merge: {error}") from None
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise SystemExit(f"merge: {name}: its stages are not in the form that DVC writes")
    return stages


def chosen(base: dict, ours: dict, theirs: dict) -> dict[str, str]:
    """Stage -> "ours" or "theirs": the side that ran it; "ours" if neither or both did."""
    return {
        stage: "theirs" if ours.get(stage) == base.get(stage) and stage in theirs else "ours"
        for stage in dict.fromkeys([*ours, *theirs])
    }


def settle() -> None:
    """Write the merged dvc.lock and put the small results of the chosen sides into place."""
    theirs = git("rev-parse", "--verify", "--quiet", "MERGE_HEAD", check=False)
    if not theirs:
        raise SystemExit("merge: no merge is under way; run `git merge <branch>` first")
    unmerged = set(git("diff", "--name-only", "--diff-filter=U").split("\n")) - {""}
    if by_hand := sorted(path for path in unmerged if not path.startswith(RESULTS)):
        raise SystemExit(f"merge: resolve these first, and `git add` them: {', '.join(by_hand)}")
    commits = {"ours": "HEAD", "theirs": theirs}
    sides = {side: locked(commit) for side, commit in commits.items()}
    choice = chosen(locked(git("merge-base", "HEAD", theirs)), sides["ours"], sides["theirs"])
    pipeline = stages_of(Path("dvc.yaml").read_text(encoding="utf-8"), "dvc.yaml")
    for stage, side in choice.items():
        print(f"merge: {printable(stage)}: {side}")
        for path in gate.in_git(pipeline.get(stage, {})):
            git("checkout", commits[side], "--", path, check=False)
    stages = {stage: sides[side][stage] for stage, side in choice.items() if stage in sides[side]}
    lock = yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)
    Path("dvc.lock").write_text(lock, encoding="utf-8")


def main() -> int:
    settle()
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "checkout", "--force", "--allow-missing"], check=False)
    if subprocess.run([*dvc, "repro"], check=False).returncode:
        print("merge: `dvc repro` failed; fix what it names and run `make merge` again", file=sys.stderr)
        return 1
    git("add", "--", "dvc.lock", *(path for path in ("metrics", "plots") if Path(path).is_dir()))
    print("merge: settled; `git commit` ends the merge")
    return 0


if __name__ == "__main__":
    sys.exit(main())
