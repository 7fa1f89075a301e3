"""What a branch changes, as Markdown, for its pull request: python tools/pull_request.py origin/main

Compares the checked-out commit with its merge base. Needs neither data nor a DVC remote: metrics, parameters, the
per-image table and dvc.lock are in git. A shallow clone fetches the commits it lacks.

Exit status 0: compared, whatever came out. 1: something could not be compared; the pull-request report says what and
why first, and must not take the place of a whole one.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))
sys.path.insert(0, str(REPOSITORY / "tools"))

import documents  # noqa: E402
import gate  # noqa: E402

from lesionseg.common.errors import InputError  # noqa: E402
from lesionseg.common.text import markdown, printable  # noqa: E402
from lesionseg.compare import comparison, table  # noqa: E402
from lesionseg.compare.command import image_counts, interval_text, markdown_table  # noqa: E402
from lesionseg.scoring.bootstrap import Resampling  # noqa: E402

MARK = "<!-- lesionseg report -->"  # the workflow finds its comment by this first line
LARGEST = 60_000  # characters; a comment takes 65,536
PARAMETERS = ("params.yaml", "environment.yaml")
PER_IMAGE = "plots/per_image.csv"
RESAMPLING = Resampling(samples=2000, seed=0)
WORDS = (comparison.BETTER, comparison.WORSE, comparison.NOISE, comparison.UNKNOWN)


class Cannot(Exception):
    """A part of the pull-request report that could not be made: why (any text), and Markdown to show besides."""

    def __init__(self, reason: str, besides: str = ""):
        self.reason, self.besides = printable(reason), besides
        super().__init__(self.reason)


def git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    found = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if check and found.returncode:
        said = found.stderr.decode(errors="replace").strip()
        raise Cannot(f"git {' '.join(arguments)}: {said}")
    return found


def merge_base(base: str) -> str:
    """The commit where the branch left `base`; a shallow clone fetches history."""
    for fetch in ([], ["--deepen=100"], ["--unshallow"]):
        if fetch:
            if git("rev-parse", "--is-shallow-repository").stdout.strip() != b"true":
                break
            remote, _, branch = base.partition("/")
            git("fetch", "--quiet", *fetch, remote, f"+refs/heads/{branch}:refs/remotes/{base}", "HEAD", check=False)
            git("fetch", "--quiet", *fetch, remote, git("rev-parse", "HEAD").stdout.decode().strip(), check=False)
        known = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}", check=False)
        if known.returncode == 0:
            found = git("merge-base", "HEAD", base, check=False)
            if found.returncode == 0:
                return found.stdout.decode().strip()
    raise Cannot(f"the base `{base}` is not a commit known here, or has none in common with HEAD; `git fetch` it")


def text(commit: str, path: str) -> str | None:
    """The text of a file in a commit; None if there is no such file."""
    if git("cat-file", "-e", f"{commit}:{path}", check=False).returncode:
        return None
    try:
        return git("show", f"{commit}:{path}").stdout.decode("utf-8")
    except UnicodeDecodeError:
        raise Cannot(f"{path} of {commit[:9]} is not UTF-8 text") from None


def mapping(commit: str, path: str) -> dict | None:
    """A JSON or YAML file in a commit; None if there is no such file."""
    content = text(commit, path)
    if content is None:
        return None
    try:
        return documents.mapping(content, f"{path} of {commit[:9]}")
    except InputError as error:
        raise Cannot(str(error)) from None


def parsed(commit: str, path: str) -> dict | None:
    """The same as a flat dict: "val.pooled.dice" -> 0.8."""
    found = mapping(commit, path)
    return None if found is None else dict(flat(found))


def flat(values: dict, prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def changes(base: str, path: str) -> tuple[list[str], dict[str, tuple]]:
    """(names that HEAD lacks, name -> (old, new) for what differs); a new file has only new values."""
    old, new = parsed(base, path), parsed("HEAD", path)
    if new is None:
        raise Cannot(f"{path} is not in HEAD{'' if old is None else ', and was in the merge base'}")
    old = old or {}
    different = {name: (old.get(name), value) for name, value in new.items() if name not in old or old[name] != value}
    return [name for name in old if name not in new], different


def metrics_files(commit: str) -> list[str]:
    """The metrics that the pipeline file of a commit declares, whether at the top or as those of a stage."""
    pipeline = mapping(commit, "dvc.yaml") or {}
    try:
        declared = [pipeline, *(pipeline.get("stages") or {}).values()]
        entries = [entry for each in declared for entry in each.get("metrics") or []]
        return list(dict.fromkeys(path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)))
    except (AttributeError, TypeError):
        raise Cannot(f"dvc.yaml of {commit[:9]}: its stages or metrics are not in the form that DVC writes") from None


def scores(base: str) -> str:
    """Scores on the shared images, each with the paired interval of its change."""
    old, new = text(base, PER_IMAGE), text("HEAD", PER_IMAGE)
    if new is None:
        raise Cannot(f"{PER_IMAGE} is not in HEAD: the scores cannot be compared image by image")
    if old is None:
        return f"The merge base has no {PER_IMAGE}: no scores to compare with."
    try:
        compared = comparison.compare(table.read(old, "the merge base"), table.read(new, "this branch"), RESAMPLING, {})
    except InputError as error:
        raise Cannot(str(error)) from None
    if not compared.differences:
        raise Cannot(" ".join(["the two sides share no image.", *compared.notes]))
    rows = [
        (
            markdown(f"{each.split} {each.score}"),
            f"{each.a:.4f}",
            f"{each.b:.4f}",
            f"{each.change:+.4f}",
            interval_text(each),
            _bold(each),
        )
        for each in compared.differences
        if each.word in WORDS
    ]
    notes = [*map(markdown, image_counts(compared)), *map(markdown, compared.notes)]
    if not rows:
        return "\n".join(["No change: every image scores as before.", "", *notes])
    return "\n".join(
        [markdown_table(("score", "before", "after", "change", "95 % interval, paired", ""), rows), "", *notes]
    )


def _bold(each: comparison.Difference) -> str:
    return f"**{each.word}**" if each.word in (comparison.BETTER, comparison.WORSE) else each.word


def metrics(base: str) -> str:
    """The tracked metrics whose value changed."""
    rows, missing = [], []
    declared = metrics_files("HEAD")
    for path in declared:
        gone, different = changes(base, path)
        missing += [f"{path}: {name}" for name in gone]
        rows += [
            (markdown(path), markdown(name), *map(_value, pair), _change(*pair)) for name, pair in different.items()
        ]
    missing += [f"{path}: not declared in dvc.yaml" for path in metrics_files(base) if path not in declared]
    shown = markdown_table(("file", "metric", "before", "after", "change"), rows) if rows else "No change."
    if missing:
        raise Cannot(
            "metrics of the merge base that this branch lacks (deleted or renamed): " + "; ".join(missing), shown
        )
    return shown


def _value(value: object) -> str:
    """A value for a cell, as text, even if a pull request sets a parameter to Markdown."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else markdown(str(value))


def _change(old: object, new: object) -> str:
    """The difference of two numbers; nothing for other values."""
    if isinstance(old, bool) or isinstance(new, bool):
        return ""
    return f"{new - old:+.4g}" if isinstance(old, int | float) and isinstance(new, int | float) else ""


def parameters(base: str) -> str:
    """Parameters and package versions that changed."""
    rows = []
    for path in PARAMETERS:
        if text(base, path) is None and text("HEAD", path) is None:
            continue
        gone, different = changes(base, path)
        rows += [(path, markdown(name), _value(old), _value(new)) for name, (old, new) in different.items()]
        rows += [(path, markdown(name), "", "removed") for name in gone]
    return markdown_table(("file", "name", "before", "after"), rows) if rows else "No change."


def stages(base: str) -> str:
    """Which stages ran, and whether dvc.lock belongs to the code."""
    sides = []
    for commit in (base, "HEAD"):
        listed = (mapping(commit, "dvc.lock") or {}).get("stages") or {}
        if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
            raise Cannot(f"dvc.lock of {commit[:9]}: its stages are not in the form that DVC writes")
        sides.append(listed)
    old, new = sides
    ran = [name for name, entry in new.items() if old.get(name) != entry]
    results = [name for name in ran if old.get(name, {}).get("outs") != new[name].get("outs")]
    lines = [
        f"Ran again: {', '.join(map(markdown, ran)) or 'none'}."
        + (f" With a different result: {', '.join(map(markdown, results)) or 'none'}." if ran else "")
    ]
    found = gate.problems(Path.cwd())
    lines += [f"**{markdown(problem)}**" for problem in found] or [
        "dvc.lock belongs to this code and these parameters."
    ]
    return "\n\n".join(lines)


def pictures(base: str, folder: Path | None) -> str:
    """Changed pictures side by side: by URL on the server that runs this, else as files under `folder`."""
    listed = git("diff", "--name-only", "-z", base, "HEAD", "--", "plots/*.png").stdout.decode(errors="replace")
    names = [name for name in listed.split("\0") if name]
    if not names:
        return "No change."
    commits = {"before": base, "after": git("rev-parse", "HEAD").stdout.decode().strip()}
    address = "/".join(filter(None, (os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY"))))
    rows = []
    for name in names:
        cells = []
        for side, commit in commits.items():
            if git("cat-file", "-e", f"{commit}:{name}", check=False).returncode:
                cells.append("none")
            elif os.environ.get("GITHUB_REPOSITORY"):
                cells.append(f"![{side}]({address}/raw/{commit}/{quote(name)})")
            elif folder:
                target = folder / side / Path(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(git("show", f"{commit}:{name}").stdout)
                cells.append(f"![{side}]({quote(target.as_posix())})")
            else:
                cells.append(f"git show {commit[:9]}:{markdown(name)}")
        rows.append((markdown(name), *cells))
    return markdown_table(("picture", "before", "after"), rows)


SECTIONS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Scores, image by image", scores),
    ("Metrics", metrics),
    ("Parameters and environment", parameters),
    ("Stages", stages),
)


def report(base: str, folder: Path | None) -> tuple[str, list[str]]:
    """(the pull-request report, what could not be compared)."""
    try:
        commit = merge_base(base)
    except Cannot as error:
        return f"{MARK}\n## Could not compare\n\n- {markdown(error.reason)}\n", [error.reason]
    body, failed = [], []
    for title, section in (*SECTIONS, ("Pictures", lambda at: pictures(at, folder))):
        try:
            content = section(commit)
        except Cannot as error:
            failed.append(f"{title}: {error.reason}")
            content = f"**Could not compare:** {markdown(error.reason)}\n\n{error.besides}"
        body.append(f"### {title}\n\n{content}\n")
    head = git("rev-parse", "--short=9", "HEAD").stdout.decode().strip()
    top = [MARK, f"## {head} against the merge base {commit[:9]} with {markdown(base)}", ""]
    if failed:
        top += ["**Could not compare:**", "", *(f"- {markdown(reason)}" for reason in failed), ""]
    whole = "\n".join([*top, *body])
    if len(whole) > LARGEST:
        whole = whole[:LARGEST].rpartition("\n")[0] + "\n\n(Cut here: the rest is too long for a comment.)\n"
    return whole, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the branch that this one is to be merged into, such as origin/main")
    parser.add_argument("--pictures", type=Path, help="folder to write old and new pictures to, where no URL is known")
    arguments = parser.parse_args()
    os.chdir(git("rev-parse", "--show-toplevel").stdout.decode().strip())
    whole, failed = report(arguments.base, arguments.pictures)
    print(whole)
    for reason in failed:
        print(f"pull_request: error: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
