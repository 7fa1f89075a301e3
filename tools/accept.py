"""Record in dvc.lock a code change that cannot alter results, without running the pipeline: make accept

For a comment or a rename, for which `dvc repro` would train for hours and write the same bytes. The tiny pipeline
checks it: it runs in throwaway clones, once with the code of BASE (HEAD, or the commit named) and once with that of the
working tree, and every output must be the same, byte for byte. What the tiny settings do not reach (a GPU, another
loss) is not checked: there, accept only what you can judge by reading.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from dvc.repo import Repo

CODE = ("src/", "stages/")
CHANGED = ("modified", "new")  # not: deleted, not in cache


def tiny_outputs(clone: Path) -> dict[str, str]:
    """Output -> md5 after the tiny pipeline in `clone`."""
    overlay = [line.strip() for line in (clone / "profiles/tiny.txt").read_text(encoding="utf-8").splitlines()]
    settings = [word for line in overlay if line and line[0] != "#" for word in ("-S", line)]
    run = [sys.executable, "-m", "dvc", "exp", "run", "--force", *settings]
    result = subprocess.run(run, cwd=clone, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"accept: the tiny pipeline fails:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    stages = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def clone_of(commit: str, target: Path, changed: bool) -> Path:
    """A clone at `commit`; if `changed`, with the tracked changes of the working tree."""
    subprocess.run(["git", "clone", "--quiet", ".", str(target)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=target, check=True)
    if changed:
        patch = subprocess.run(["git", "diff", "--binary", commit], capture_output=True, check=True).stdout
        if patch:
            subprocess.run(["git", "apply", "--binary", "-"], cwd=target, input=patch, check=True)
    identity = {"user.name": "accept", "user.email": "accept@localhost"}
    for key, value in identity.items():
        subprocess.run(["git", "config", key, value], cwd=target, check=True)
    return target


def code_changes(repo: Repo) -> list:
    """The stages whose code changed; SystemExit names anything else that did. Missing data is no change."""
    other, addresses = [], []
    for address, changes in repo.status(check_updates=False).items():
        for change in changes:
            found = change if isinstance(change, dict) else {change: {}}
            for kind, entries in found.items():
                paths = [path for path, state in dict(entries).items() if path.startswith(CODE) or changed(state)]
                if kind == "changed deps" and all(path.startswith(CODE) for path in paths):
                    addresses += [address] if paths else []
                elif paths or kind not in ("changed deps", "changed outs"):
                    other.append(" ".join([f"{address}: {kind}", *paths]))
    if other:
        raise SystemExit("accept: more than code changed; run `dvc repro`:\n  " + "\n  ".join(other))
    return [stage for stage in repo.index.stages if stage.addressing in addresses]


def changed(state: str | dict) -> bool:
    """Whether DVC's status of a file says that it changed; a parameter file has a status per parameter."""
    return isinstance(state, dict) or state in CHANGED


def commit_of(name: str) -> str:
    """The commit's hash, as a clone knows no branch but the one that is checked out."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"accept: found no commit `{name}`; name the last one with the old code, such as main")
    return found.stdout.strip()


def main() -> int:
    base = commit_of(sys.argv[1] if len(sys.argv) > 1 else "HEAD")
    with Repo(".") as repo:
        stages = code_changes(repo)
        if not stages:
            print("accept: nothing to do, dvc.lock belongs to this code")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            before = tiny_outputs(clone_of(base, Path(folder) / "before", changed=False))
            after = tiny_outputs(clone_of(base, Path(folder) / "after", changed=True))
        differ = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if differ:
            print(f"accept: refused, the tiny run writes other bytes: {', '.join(differ)}", file=sys.stderr)
            return 1
        with repo.lock:
            for stage in stages:
                for dep in stage.deps:
                    if str(dep).startswith(CODE):
                        dep.save()
                stage.dump(update_pipeline=False)
    names = ", ".join(stage.name for stage in stages)
    print(f"accept: the tiny run is the same byte for byte; dvc.lock now has the code of {names}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
