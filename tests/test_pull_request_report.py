"""The report in a pull request: made from a clone that holds neither data nor a DVC remote."""

import json
import shutil

from conftest import Clone


def test_the_report_shows_metrics_and_parameters_of_both_sides(tiny_run, tmp_path):
    tiny_run.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Clone(tmp_path / "clone", {})
    for name in ("params.yaml", "dvc.lock"):
        shutil.copyfile(tiny_run.root / name, clone.root / name)
    shutil.copytree(tiny_run.root / "metrics", clone.root / "metrics", dirs_exist_ok=True)
    clone.run("git", "commit", "--quiet", "--all", "--message=The tiny parameters")

    report = clone.run("bash", ".github/report.sh", "HEAD~1").stdout

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("|")]
    metrics = json.loads((clone.root / "metrics/evaluation.json").read_text(encoding="utf-8"))
    assert ["params.yaml", "train.epochs", "10", "4"] in rows
    (images,) = [row for row in rows if row[:2] == ["metrics/evaluation.json", "val.images"]]
    assert images[3] == str(metrics["val"]["images"])
    assert images[2] != images[3]


def test_no_change_is_said_in_words(tiny_run):
    report = tiny_run.run("bash", ".github/report.sh", "HEAD").stdout
    assert report.count("No change.") == 2
