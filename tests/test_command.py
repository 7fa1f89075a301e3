"""The command `lesionseg` and the package as it is imported: quick, and a line for what goes wrong."""

import os
import subprocess
import sys
from importlib import import_module

import pytest

import lesionseg
from lesionseg.__main__ import COMMANDS, main
from tiny_data import REPOSITORY

HEAVY = (
    *("torch", "numpy", "scipy", "sklearn", "pandas", "cv2", "PIL", "matplotlib", "safetensors", "tqdm"),
    *("onnx", "onnxruntime", "dvc", "pydantic", "yaml", "requests"),
)


@pytest.mark.parametrize(
    "code",
    [
        "import lesionseg",
        *(
            f"from lesionseg.__main__ import main\ntry: main({words})\nexcept SystemExit: pass"
            for words in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS))
        ),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    program = f"{code}\nimport sys\nprint('loaded:', *(name for name in {HEAVY} if name in sys.modules))"
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1].split() == ["loaded:"]


def test_the_package_names_what_it_gives():
    assert sorted(lesionseg.__all__) == ["Model", "Settings", "load"]
    assert lesionseg.Model is import_module("lesionseg.predict.model").Model
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        lesionseg.laod  # noqa: B018


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: lesionseg {name}")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert COMMANDS[name][1] in " ".join(capsys.readouterr().out.split())


def test_an_unknown_command_names_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predcit"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in COMMANDS)


def failing(error):
    def run(options):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "compare: interrupted"),
        (OSError(28, "No space left on device", "/full"), 1, "compare: error: /full: No space left on device;"),
        (
            PermissionError(13, "Permission denied", "/mine"),
            1,
            "compare: error: /mine: Permission denied;",
        ),
        (ModuleNotFoundError("No module named 'dvc'", name="dvc.api"), 1, "compare: error: No module named 'dvc'; "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_is_one_line(monkeypatch, capsys, error, code, said):
    monkeypatch.setattr("lesionseg.compare.command.run", failing(error))
    assert main(["compare", "A"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_two_tables_are_compared(tmp_path, capsys):
    assert main(["compare", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith("compare: error:")
