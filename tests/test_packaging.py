"""`pip install .` brings what prediction takes, and no more; the pipeline's packages are an extra."""

import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from environment import COMPUTING
from import_closure import REPOSITORY, packages
from PIL import Image
from safetensors.torch import save_file

import lesionseg.__main__
from lesionseg.inference.prediction import PACKAGES
from lesionseg.networks import weights

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTION = {"PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "pyyaml"}
OURS = {path.stem for path in (REPOSITORY / "tools").glob("*.py")}
WITH_ANOTHER = {"cycler", "pydantic_core"}  # parts of the interface of matplotlib and pydantic, which require them


def names(requirements):
    return {re.match(r"[\w.-]+", requirement).group() for requirement in requirements}


def imported(*paths):
    found = {name for path in paths for name in packages(REPOSITORY / path)} - set(sys.stdlib_module_names)
    return {DISTRIBUTION.get(name, name) for name in found}


BASE, PIPELINE = names(PROJECT["dependencies"]), names(PROJECT["optional-dependencies"]["pipeline"])


def test_the_base_is_what_prediction_imports():
    assert imported("src/lesionseg/__main__.py", "src/lesionseg/predict/options.py") == BASE


def test_base_and_pipeline_are_what_the_stages_the_commands_and_the_tools_import():
    code = [*(REPOSITORY / "stages").glob("*.py"), *(REPOSITORY / "tools").glob("*.py")]
    code += [REPOSITORY / "src/lesionseg/compare/options.py"]
    assert imported(*code) - OURS - WITH_ANOTHER == BASE | PIPELINE
    assert not BASE & PIPELINE


def test_the_packages_recorded_with_a_mask_are_those_its_code_computes_with():
    assert set(PACKAGES) == {
        COMPUTING[name] for name in packages(REPOSITORY / "src/lesionseg/predict/model.py") & set(COMPUTING)
    }


def test_prediction_runs_where_the_pipelines_packages_are_missing(tmp_path, network):
    weights.save(tmp_path / "model.safetensors", *network)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    modules = {name: name for name in PIPELINE} | {package: module for module, package in DISTRIBUTION.items()}
    program = f"""
import sys
sys.modules |= dict.fromkeys({[modules[name] for name in sorted(PIPELINE)]})
from lesionseg.__main__ import main
sys.exit(main(["predict", "a.png", "--output", "out", "--model", "."]))
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out/a_segmentation.png").is_file()


def test_a_missing_package_is_one_line_with_what_installs_it(monkeypatch, capsys):
    """Whether it is missed at the import of the command, as here, or later."""
    monkeypatch.setattr(lesionseg.__main__, "requires", lambda _: ["torch==2", "scipy<2,>=1.14; extra == 'pipeline'"])
    for module in [name for name in sys.modules if name.startswith(("lesionseg.compare", "lesionseg.scoring"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert lesionseg.__main__.main(["compare", "A"]) == 1
    assert "compare: error: import of scipy halted" in (said := capsys.readouterr().err)
    assert "pip install 'lesionseg[pipeline]'" in said


def foreign(tmp_path):
    """Files that are no model, by what is said of them."""
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 pickled")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "folder").mkdir()
    return {
        "model.pt": "not a readable safetensors file",
        "empty.safetensors": "not a readable safetensors file",
        "other.safetensors": "expected 'lesionseg'",
        "folder": "holds neither model.safetensors",
        "nowhere": "not found",
    }


@pytest.mark.parametrize("name", ["model.pt", "empty.safetensors", "other.safetensors", "folder", "nowhere"])
def test_what_is_no_model_is_refused_by_name(tmp_path, capsys, name):
    said = foreign(tmp_path)[name]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    call = ["predict", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--model", str(tmp_path / name)]
    assert lesionseg.__main__.main(call) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert said in line
    assert not (tmp_path / "out").exists()
