"""The pull-request report, played through: branches of a small repository, as git sees them, without data."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import gate
import merge
import pull_request
import pytest
import yaml

from conftest import REPOSITORY

COLUMNS = "split,id,group,tp,fp,fn,tn,dice,iou,jaccard_native,width,height,lesion_fraction"
WORKFLOW = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def git(*arguments, cwd=None):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout


def commit(message, **files):
    for name, content in files.items():
        path = Path(name.replace("__", "/").replace("_dot_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", f"--message={message}")


def run_results(missed):
    """The files of a run in which so many of the 100 lesion pixels of each of 20 images were missed."""
    rows = []
    for number in range(20):
        tp = 100 - missed - number
        dice, iou = 2 * tp / (100 + tp), tp / 100
        rows.append(f"val,i{number},g{number},{tp},0,{100 - tp},900,{dice:.4f},{iou:.4f},{iou:.4f},60,40,0.1")
    return {
        "plots__per_image_dot_csv": "\n".join([COLUMNS, *rows]) + "\n",
        "metrics__evaluation_dot_json": json.dumps({"val": {"images": 20, "dice": 1 - missed / 100}}),
        "plots__roc_dot_png": f"picture {missed}",
        "dvc_dot_lock": f"stages: {{train: {{outs: [{{path: model, md5: a{missed}}}]}}}}",
    }


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A branch `work` off `main`, checked out; main has moved on since."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.setattr(gate, "problems", lambda root: [])
    (tmp_path / "origin").mkdir()
    monkeypatch.chdir(tmp_path / "origin")
    git("init", "--quiet", "--initial-branch=main")
    commit(
        "start",
        dvc_dot_yaml="metrics: [metrics/evaluation.json]\n",
        params_dot_yaml="train: {epochs: 10}\n",
        environment_dot_yaml='train: {torch: "2.13.0"}\n',
        **run_results(30),
    )
    git("branch", "work")
    commit("main moves on", params_dot_yaml="train: {epochs: 10, seed: 7}\n", **run_results(1))
    git("checkout", "--quiet", "work")
    return tmp_path / "origin"


def test_a_branch_that_changes_nothing_says_so_and_main_moving_on_does_not_show(repository):
    commit("a word in the readme", README="text")
    report, failed = pull_request.report("main", None)
    assert failed == []
    assert report.startswith(pull_request.MARK)
    assert report.count("No change") == 4
    assert "seed" not in report


def test_a_branch_that_changed_a_parameter_and_ran_shows_what_it_did(repository, tmp_path):
    commit("longer", params_dot_yaml="train: {epochs: 30}\n", **run_results(20))
    report, failed = pull_request.report("main", tmp_path / "pictures")
    assert failed == []
    assert "| params.yaml | train.epochs | 10 | 30 |" in report
    row = r"\| val pooled\.dice \| 0\.\d+ \| 0\.\d+ \| \+0\.\d+ \| \+0\.\d+ to \+0\.\d+ \| \*\*better\*\* \|"
    assert re.search(row, report)
    assert "| metrics/evaluation.json | val.dice | 0.7 | 0.8 | +0.1 |" in report
    assert "Ran again: train. With a different result: train." in report
    for side, content in (("before", "picture 30"), ("after", "picture 20")):
        assert (tmp_path / "pictures" / side / "roc.png").read_text(encoding="utf-8") == content


def test_pictures_have_addresses_where_the_server_is_known(repository, monkeypatch):
    commit("longer", **run_results(20))
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.org")
    monkeypatch.setenv("GITHUB_REPOSITORY", "group/name")
    report, _ = pull_request.report("main", None)
    head = git("rev-parse", "HEAD").strip()
    assert f"![after](https://git.example.org/group/name/raw/{head}/plots/roc.png)" in report


def test_an_upgrade_of_torch_shows(repository):
    commit("upgrade", environment_dot_yaml='train: {torch: "2.14.0"}\n')
    report, _ = pull_request.report("main", None)
    assert "| environment.yaml | train.torch | 2.13.0 | 2.14.0 |" in report


def test_a_branch_that_forgot_to_run_is_told(repository, monkeypatch):
    monkeypatch.setattr(gate, "problems", lambda root: ["dvc.lock is stale"])
    commit("forgotten", params_dot_yaml="train: {epochs: 30}\n")
    report, failed = pull_request.report("main", None)
    assert "**dvc.lock is stale**" in report
    assert failed == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"metrics__evaluation_dot_json": '{"val": {"images": 20}}'}, "renamed): metrics/evaluation.json: val.dice"),
        (
            {"metrics__evaluation_dot_json": '{"val": {"images": 20, "pooled_dice": 0.7}}'},
            "renamed): metrics/evaluation.json: val.dice",
        ),
        ({"dvc_dot_yaml": "metrics: []\n"}, "metrics/evaluation.json: not declared in dvc.yaml"),
        ({"metrics__evaluation_dot_json": "{"}, "metrics/evaluation.json of HEAD cannot be read"),
        ({"params_dot_yaml": "train: [\n"}, "params.yaml of HEAD cannot be read"),
        ({"dvc_dot_lock": "a: b: c"}, "dvc.lock of HEAD cannot be read"),
        ({"plots__per_image_dot_csv": "id\nx\n"}, "this branch: found the columns id"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason_first(repository, files, reason):
    commit("broken", **files)
    report, failed = pull_request.report("main", None)
    assert any(reason in problem for problem in failed), failed
    assert report.index("Could not compare") < report.index("###")


def test_the_same_invalid_file_on_both_sides_is_not_no_change(repository):
    commit("broken", metrics__evaluation_dot_json="{")
    git("branch", "broken-base")
    commit("more", README="text")
    _, failed = pull_request.report("broken-base", None)
    assert failed


def test_an_unknown_base_fails(repository):
    report, failed = pull_request.report("origin/nowhere", None)
    assert "Could not compare" in report
    assert "origin/nowhere" in failed[0]


def test_a_shallow_clone_fetches_what_it_lacks(repository, tmp_path, monkeypatch):
    for number in range(3):
        commit(f"step {number}", README=str(number))
    git("clone", "--quiet", "--depth=1", "--branch=work", repository.as_uri(), str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    report, failed = pull_request.report("origin/main", None)
    assert failed == []
    assert git("merge-base", "origin/main", "HEAD").strip()[:9] in report


def test_by_hand_the_exit_status_says_whether_it_could_compare(repository):
    script = [sys.executable, str(REPOSITORY / "tools/pull_request.py"), "nowhere"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pull_request: error:" in result.stderr


def steps(job: str) -> list[str]:
    """The shell lines of a job of the workflow."""
    return [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


@pytest.mark.parametrize(
    ("base", "status", "said"), [("main", 0, "| val pooled.dice |"), ("nowhere", 1, "Could not compare")]
)
def test_the_workflow_compares_in_a_shallow_clone(repository, tmp_path, base, status, said):
    """Its step, as GitHub's runner starts it: without data, a part that could not be made ends with a failure."""
    commit("longer", **run_results(20))
    clone = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=1", "--branch=work", repository.as_uri(), str(clone))
    for folder in ("tools", "src"):
        (clone / folder).symlink_to(REPOSITORY / folder)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {
        "PATH": path,
        "BASE": f"origin/{base}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps("report")[-1]]
    assert subprocess.run(shell, cwd=clone, env=environment, capture_output=True, check=False).returncode == status
    report = (clone / "report.md").read_text(encoding="utf-8")
    assert said in report
    assert (tmp_path / "summary").read_text(encoding="utf-8") == report


def test_the_workflow_installs_what_the_comparison_imports():
    """And not the rest of what the library needs, torch above all."""
    listing = steps("report")[0].replace("xargs pip install", "cat")
    pins = subprocess.run(["bash", "-c", listing], cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout
    code = "import sys; sys.path.insert(0, 'tools'); import pull_request; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    modules = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout.split()
    packages = packages_distributions()
    imported = {name.lower() for module in modules for name in packages.get(module.partition(".")[0], [])}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    of_the_library = [*project["dependencies"], *project["optional-dependencies"]["pipeline"]]
    needed = imported & {re.match(r"[\w.-]+", requirement).group() for requirement in of_the_library}
    assert {"numpy", "pyyaml"} <= needed <= {pin.partition("==")[0] for pin in pins.split()}


@pytest.mark.parametrize(("existing", "method"), [("17\n21\n", "PATCH"), ("", "POST")])
def test_the_workflow_updates_its_one_comment(tmp_path, existing, method):
    [script] = steps("comment")
    (tmp_path / "ids").write_text(existing, encoding="utf-8")
    (tmp_path / "gh").write_text(
        '#!/bin/sh\necho "$@" >> calls\ncase "$*" in *--paginate*) cat ids;; esac\n', encoding="utf-8"
    )
    (tmp_path / "gh").chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "GH_REPO": "group/name", "NUMBER": "5"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, check=True)
    posted = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()[-1]
    target = "repos/group/name/issues/comments/17" if existing else "repos/group/name/issues/5/comments"
    assert posted == f"api --method {method} {target} --field body=@report.md"


def test_the_workflow_asks_for_little_and_pins_everything():
    for job in WORKFLOW["jobs"].values():
        for step in job["steps"]:
            assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40))
    assert WORKFLOW["permissions"] == {"contents": "read"}
    writing = {name for name, job in WORKFLOW["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert writing == {"comment"}
    assert not any("checkout" in step.get("uses", "") for step in WORKFLOW["jobs"]["comment"]["steps"])


EVIL = "a](https://a.example) @team ![x](https://b.example) <b>"
BOMB = "\n".join(f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]" for before, here in pairwise("abcdefghi"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("params_dot_yaml", f"a: &a [x, x]\n{BOMB}\ntrain: *i\n"),
        ("params_dot_yaml", "train: &a {epochs: *a}\n"),
        ("params_dot_yaml", "train: {epochs: 1}\ntrain: {epochs: 2}\n"),
        ("params_dot_yaml", "train: " + "[" * 20_000),
        ("params_dot_yaml", "train: {epochs: !!bool x}\n"),
        ("params_dot_yaml", "train: {epochs: !!python/object/apply:os.system [touch sprung]}\n"),
        ("params_dot_yaml", f"train: {{epochs: 0x{'f' * 9000}}}\n"),
        ("params_dot_yaml", "2001-01-01: 3\n"),
        ("params_dot_yaml", "x: " + "y" * (5 << 20)),
        ("metrics__evaluation_dot_json", '{"val": ' + "[" * 100_000),
        ("metrics__evaluation_dot_json", '{"val": 1' + "0" * 4000 + "}"),
        ("metrics__evaluation_dot_json", '{"val": 1' + "0" * 5000 + "}"),
        ("metrics__evaluation_dot_json", "[1]"),
        ("dvc_dot_yaml", "metrics: 3\n"),
        ("dvc_dot_yaml", "metrics: [metrics/evaluation.json]\nstages: [1]\n"),
        ("dvc_dot_yaml", "[1]"),
        ("dvc_dot_lock", "stages: [1]\n"),
        ("dvc_dot_lock", "stages: {train: 3}\n"),
        ("dvc_dot_lock", "stages: {train: &a {outs: *a}}\n"),
        ("plots__per_image_dot_csv", f"{COLUMNS}\nval,{'x' * 200_000},g,1,1,1,1,1,1,1,1,1,1\n"),
        ("plots__per_image_dot_csv", f"{COLUMNS}\nval\n"),
    ],
)
def test_files_that_a_branch_made_to_do_harm_are_refused_by_name(repository, file, content):
    commit("hostile", **{file: content})
    report, failed = pull_request.report("main", None)
    assert any(file.replace("__", "/").replace("_dot_", ".") in reason or "this branch" in reason for reason in failed)
    assert len(report) < 20_000
    assert not Path("sprung").exists()


def test_nothing_that_a_branch_names_is_markdown(repository, monkeypatch):
    """Stages, splits, images, metrics and their files, pictures, and whatever a message repeats of them."""
    monkeypatch.undo()
    monkeypatch.chdir(repository)
    row = "1,0,1,9,0.5,0.5,0.5,60,40,0.1"
    name = EVIL.replace("/", "")
    commit(
        "hostile",
        dvc_dot_yaml=json.dumps({"metrics": ["metrics/evaluation.json", f"metrics/{name}.json"]}),
        dvc_dot_lock=json.dumps({"stages": {EVIL: {"outs": []}, "train": {"outs": EVIL}}}),
        plots__per_image_dot_csv=f"{COLUMNS}\nval,i1,g,{row}\n" + f'"{EVIL}",i1,g,{row}\n' * 2,
        params_dot_yaml=json.dumps({EVIL: EVIL}),
        environment_dot_yaml=f"{EVIL}: [",
        **{f"metrics__{name}_dot_json": json.dumps({EVIL: EVIL}), f"plots__{name}_dot_png": "picture"},
    )
    report, failed = pull_request.report("main", None)
    assert len(failed) == 2, "the environment and an image that is there twice"
    assert not re.search(r"\]\(|@team|<b>|https:", report)


@pytest.mark.parametrize("stages", ["[1]", "{train: 3}", "{train: {plots: [{a.png: {cache: false}}], outs: 3}}"])
@pytest.mark.parametrize("file", ["dvc.yaml", "dvc.lock"])
def test_the_gate_refuses_what_is_not_written_as_dvc_has_it(tmp_path, file, stages):
    for name in ("dvc.yaml", "dvc.lock"):
        (tmp_path / name).write_text("stages: {train: {plots: [{plots/roc.png: {cache: false}}]}}\n", encoding="utf-8")
    (tmp_path / file).write_text(f"stages: {stages}\n", encoding="utf-8")
    (problem,) = gate.problems(tmp_path)
    assert "cannot be read" in problem or "does not list it" in problem


def test_the_gate_and_the_merge_take_no_file_that_means_more_than_it_says(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {a: &a {outs: *a}}\n", encoding="utf-8")
    (tmp_path / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    (problem,) = gate.problems(tmp_path)
    assert "aliases are not accepted" in problem
    with pytest.raises(SystemExit, match="aliases are not accepted"):
        merge.stages_of("stages: {a: &a {outs: *a}}", "dvc.lock of theirs")
    with pytest.raises(SystemExit, match="not in the form that DVC writes"):
        merge.stages_of("stages: {a: 1}", "dvc.lock of theirs")
