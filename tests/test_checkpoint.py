"""Checkpoints: whole, keyed, bounded."""

import os
import runpy
import time

import pytest
import torch

from lesionseg.train import checkpoint
from lesionseg.train.checkpoint import OTHER_RUNS, Checkpoints, key, source_files


def test_a_state_comes_back(tmp_path):
    state = {"weights": {"a": torch.arange(3.0)}, "history": [{"epoch": 1, "loss": 0.5}], "best": {"dice": -1.0}}
    checkpoints = Checkpoints(tmp_path, "a")
    assert checkpoints.load() is None
    checkpoints.save(state)
    again = Checkpoints(tmp_path, "a").load()
    assert torch.equal(again["weights"]["a"], state["weights"]["a"])
    assert again["history"] == state["history"]


def test_scaler_state_comes_back(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    optimiser.param_groups[0]["params"][0].grad = torch.tensor([float("inf")])
    scaler.scale(torch.ones(1))
    scaler.step(optimiser)
    scaler.update()
    assert scaler.get_scale() == 512.0  # halved by the overflow
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save({"scaler": scaler.state_dict()})
    fresh = torch.amp.GradScaler("cpu")
    fresh.load_state_dict(checkpoints.load()["scaler"])
    assert fresh.get_scale() == 512.0


def test_another_key_finds_nothing(tmp_path):
    Checkpoints(tmp_path, "a").save({"x": 1})
    assert Checkpoints(tmp_path, "b").load() is None


def test_the_key_depends_on_facts_and_file_contents(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"1")
    keys = [key({"lr": 1e-4}, [file]), key({"lr": 1e-3}, [file]), key({"lr": 1e-4})]
    assert key({"lr": 1e-4}, [file]) == keys[0]
    file.write_bytes(b"2")
    keys.append(key({"lr": 1e-4}, [file]))
    assert len(set(keys)) == 4


def test_source_files_are_the_loaded_modules_and_the_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from lesionseg.train.checkpoint import source_files\nfiles = source_files()\n")
    files = runpy.run_path(str(script), run_name="__main__")["files"]
    assert str(script) in files
    assert checkpoint.__file__ in files
    assert all(file.endswith(".py") for file in source_files() if "lesionseg" in file)
    assert not any("torch" in file for file in files if file != str(script))


def test_a_failed_write_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save({"x": 1})

    def fails(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save({"x": 2})
    assert checkpoints.load() == {"x": 1}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["checkpoint_1.pt"]


def test_leftovers_of_a_killed_write_are_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save({"x": 1})
    (tmp_path / "a" / ".checkpoint_1.pt.123.tmp").write_bytes(b"half")
    assert checkpoints.load() == {"x": 1}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["checkpoint_1.pt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_an_unreadable_one_counts_as_none(tmp_path, capsys, content):
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save({"x": 1})
    checkpoints.path.write_bytes(content)
    assert checkpoints.load() is None
    assert "unreadable" in capsys.readouterr().err


def test_no_code_is_run_from_a_file(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save({"x": Evil()})
    assert checkpoints.load() is None
    assert not (tmp_path / "evil").exists()


def test_when_one_is_due(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    every_epoch, every_two_minutes = Checkpoints(tmp_path, "a", 0), Checkpoints(tmp_path, "b", 2)
    assert every_epoch.due(epoch_ended=True)
    assert not every_epoch.due(epoch_ended=False)
    assert not every_two_minutes.due(epoch_ended=True)
    now += 119
    assert not every_two_minutes.due(epoch_ended=False)
    now += 1
    assert every_two_minutes.due(epoch_ended=False)
    every_two_minutes.save({})
    assert not every_two_minutes.due(epoch_ended=True)


def test_a_finished_run_removes_its_own_only(tmp_path):
    mine, other = Checkpoints(tmp_path, "mine"), Checkpoints(tmp_path, "other")
    mine.save({"x": 1})
    other.save({"x": 2})
    mine.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert other.load() == {"x": 2}


def test_members_of_a_run_have_one_each_and_end_together(tmp_path):
    first, second = (Checkpoints(tmp_path, "run", 0, member) for member in (1, 2))
    first.save({"x": 1})
    assert second.load() is None
    second.save({"x": 2})
    assert (first.load(), second.load()) == ({"x": 1}, {"x": 2})
    for age in range(OTHER_RUNS):
        Checkpoints(tmp_path, f"other{age}").save({})
    assert first.path.exists()
    second.remove()
    assert not first.path.exists()


def test_only_the_newest_unfinished_runs_are_kept(tmp_path):
    for age in range(5):
        Checkpoints(tmp_path, f"run{age}").save({"age": age})
        os.utime(tmp_path / f"run{age}" / "checkpoint_1.pt", (age, age))
    current = Checkpoints(tmp_path, "current")
    current.save({})
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["current", *(f"run{age}" for age in range(5 - OTHER_RUNS, 5))]
