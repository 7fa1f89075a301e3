"""How a stage ends: its status and its messages."""

import errno
import os
import resource

import numpy as np
import pytest
import torch

from lesionseg.common import stage
from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic
from lesionseg.formats.array_writer import ArrayWriter


def ended(main, capsys) -> tuple[int, list[str]]:
    """The status, and the lines on stderr."""
    with pytest.raises(SystemExit) as end:
        stage.run_stage("download", main)
    return end.value.code, capsys.readouterr().err.splitlines()


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_of_many_problems_the_rest_is_in_a_file(workspace, capsys):
    problems = [f"images/{number}.jpg: no mask" for number in range(123)]
    status, said = ended(raising(InputError(problems)), capsys)
    assert status == 1
    assert said[:50] == [f"download: error: {problem}" for problem in problems[:50]]
    assert said[50:] == ["download: error: … and 73 more; all 123 are in .cache/download-problems.txt"]
    assert (workspace / ".cache/download-problems.txt").read_text().splitlines() == problems


def test_without_room_for_the_file_the_rest_is_counted(workspace, capsys):
    (workspace / ".cache").write_text("a file in the way")
    status, said = ended(raising(InputError(map(str, range(51)))), capsys)
    assert (status, said[50:]) == (1, ["download: error: … and 1 more"])


@pytest.mark.parametrize("number", stage.SYSTEM)
def test_what_the_system_refuses_is_one_line_with_a_cure(number, capsys):
    status, said = ended(raising(OSError(number, os.strerror(number), "data/raw/x")), capsys)
    what, cure = stage.SYSTEM[number]
    assert (status, said) == (1, [f"download: error: data/raw/x: {what}; {cure} and run `dvc repro` again"])


def test_a_failed_write_behind_a_librarys_own_error_is_told(capsys):
    def main() -> None:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 as a library does

    status, said = ended(main, capsys)
    assert status == 1
    assert "the disk quota is used up" in said[0]


@pytest.mark.parametrize(
    ("folder", "said"), [("clone", "`dvc repro` goes on from here"), ("clone/.dvc/tmp/exps/tmp1", "starts anew")]
)
def test_an_interruption_says_what_remains(tmp_path, monkeypatch, capsys, folder, said):
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / folder)
    status, [line] = ended(raising(KeyboardInterrupt()), capsys)
    assert status == 130
    assert line.startswith("download: interrupted; ")
    assert line.endswith(said)


def test_other_errors_stay_errors_of_the_program():
    for error in (KeyError("x"), OSError(errno.EIO, "Input/output error"), OSError("no number")):
        with pytest.raises(type(error)):
            stage.run_stage("download", raising(error))


def write_array() -> None:
    with ArrayWriter("images.npy", (64, 64, 3)) as images:
        images.append(np.zeros((64, 64, 3), np.uint8))
        images.append(np.zeros((64, 64, 3), np.uint8))


def write_state() -> None:
    with atomic("checkpoint.pt") as temporary, open(temporary, "wb") as file:
        torch.save({"weights": torch.zeros(10_000)}, file)


@pytest.mark.parametrize("write", [write_array, write_state])
def test_a_file_beyond_the_limit_of_the_shell(write, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        status, said = ended(write, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1
    assert len(said) == 1
    assert "larger than its disk or `ulimit -f` allows" in said[0]
