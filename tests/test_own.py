"""`make own`: what it writes into dvc.yaml and what it tells its user to run."""

import shlex
import subprocess
import sys
from pathlib import Path

import own
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import REPOSITORY
from lesionseg.common.errors import InputError
from lesionseg.download.tracked import require_tracked

PIPELINE = """\
stages:
  download:
    cmd: python stages/download.py
    deps:
      - stages/download.py
    outs:
      - data/raw
  train:
    deps:
      - data/raw
"""
NAMES = ["pairs", "pairs (1)", "[new] set, 2=two", 'a "quoted" name', "it's", "back\\slash", "Läsionen", "null"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    root.mkdir()
    (root / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def make_own(monkeypatch, capsys, folder) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["own.py", str(folder)])
    code = own.main()
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_elsewhere_is_named_absolutely(repository, tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / name
    folder.mkdir()
    code, out, _ = make_own(monkeypatch, capsys, folder)
    assert code == 0
    stages = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert stages["download"]["deps"] == [str(folder), "stages/download.py"]
    assert stages["train"]["deps"] == ["data/raw"]
    require_tracked("download.folder", str(folder))
    assert "Commit dvc.yaml, then" in out
    assert ".dvc" not in out.replace("dvc.yaml", "")
    before = (repository / "dvc.yaml").read_bytes()
    assert make_own(monkeypatch, capsys, folder)[0] == 0
    assert (repository / "dvc.yaml").read_bytes() == before, "the second time it is there already"


@pytest.mark.parametrize("name", [*(f"/data/{name}" for name in NAMES), "data/mine", "null"])
def test_the_printed_setting_reaches_the_parameter(name):
    [argument] = shlex.split(own.setting(name))
    [override] = OverridesParser.create().parse_overrides([argument])
    assert override.value() == name


def test_a_relative_path_out_of_the_repository_and_the_home_directory_become_absolute(
    repository, tmp_path, monkeypatch, capsys
):
    (tmp_path / "pairs").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("../pairs", "~/pairs"):
        code, out, _ = make_own(monkeypatch, capsys, given)
        assert code == 0
        assert f"{tmp_path / 'pairs'} is now a dependency" in out
        with pytest.raises(InputError, match=f"write.* {tmp_path / 'pairs'}"):
            require_tracked("download.folder", given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "name the folder"),
        ("../absent", "not a directory"),
        (".", "contains the repository itself"),
        ("..", "contains the repository itself"),
        ("../${HOME}", "rename the folder"),
    ],
)
def test_what_cannot_be_a_dependency_is_refused(repository, tmp_path, monkeypatch, capsys, given, said):
    (tmp_path / "${HOME}").mkdir()
    code, _, error = make_own(monkeypatch, capsys, given)
    assert code == 1
    assert said in error
    assert Path("dvc.yaml").read_text(encoding="utf-8") == PIPELINE


def test_pictures_that_were_not_fetched_are_named_with_the_command(repository, tmp_path, monkeypatch, capsys):
    """DVC would take the pointers for the pictures, and stops at a broken link without saying what it is."""
    folder = tmp_path / "pairs"
    (folder / "masks").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git/x").symlink_to("nowhere")
    (folder / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    for number in range(12):
        (folder / f"masks/{number:02d}.png").symlink_to(f"../.git/annex/objects/SHA256E-s9--{number}.png")
    code, _, error = make_own(monkeypatch, capsys, folder)
    assert code == 1
    assert "a.jpg: is a git-LFS pointer, not the picture itself; fetch it: git lfs pull" in error
    assert f"git annex get {folder}/masks/00.png" in error
    assert error.endswith("… and 3 more\n")
    assert Path("dvc.yaml").read_text(encoding="utf-8") == PIPELINE


def test_a_pipeline_without_the_stage_is_refused(repository, tmp_path, monkeypatch, capsys):
    (tmp_path / "pairs").mkdir()
    Path("dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    code, _, error = make_own(monkeypatch, capsys, tmp_path / "pairs")
    assert code == 1
    assert "no stage download" in error


def test_the_message_for_an_untracked_folder_can_be_typed(repository):
    with pytest.raises(InputError, match="make own FOLDER='data/pairs \\(1\\)'"):
        require_tracked("download.folder", "data/pairs (1)")


@pytest.mark.parametrize("name", ["it's mine (1)", "a; touch sprung", "$(shell touch sprung)", '"`touch sprung`"'])
@pytest.mark.parametrize(("target", "variable"), [("own", "FOLDER"), ("report", "BASE"), ("accept", "BASE")])
def test_make_hands_on_a_name_as_it_is(tmp_path, target, variable, name):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8").replace(": env ##", ": ##")
    (tmp_path / "Makefile").write_text(makefile, encoding="utf-8")
    (tmp_path / "tools").mkdir()
    for tool in ("own", "pull_request", "accept"):
        (tmp_path / f"tools/{tool}.py").write_text("import sys; print(sys.argv[1])", encoding="utf-8")
    make = ["make", "--silent", target, f"{variable}={name}"]
    assert subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == f"{name}\n"
    assert not (tmp_path / "sprung").exists()
