"""An exported model serves without torch: examples/onnx_serving, in a process that can import neither that nor us."""

import subprocess
import sys

import numpy as np
from PIL import Image, ImageOps

import lesionseg
from lesionseg.__main__ import main
from lesionseg.networks import weights
from tiny_data import REPOSITORY, lesion, picture

SCRIPT = REPOSITORY / "examples/onnx_serving/predict.py"
ABSENT = ("torch", "dvc", "lesionseg", "cv2", "onnx", "scipy")
BLOCKED = f"""
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def served(*arguments) -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", BLOCKED, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_example_gives_the_models_mask_without_torch(network, tmp_path):
    weights.save(tmp_path / "model.safetensors", *network)
    file, mask = tmp_path / "lesion.onnx", tmp_path / "mask.png"
    assert main(["export", "--model", str(tmp_path / "model.safetensors"), "--output", str(file)]) == 0
    photograph = Image.fromarray(picture(2, lesion(2, 120, 90)))
    sideways = Image.Exif()
    sideways[0x0112] = 6  # a camera held upright
    photograph.save(tmp_path / "photograph.png", exif=sideways)
    done = served(file, tmp_path / "photograph.png", mask)
    assert done.returncode == 0, done.stderr
    assert "is lesion, at threshold 0.5" in done.stdout
    found = np.asarray(Image.open(mask)) > 0
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "photograph.png")))
    expected = lesionseg.load(tmp_path / "model.safetensors", "cpu").predict(upright)
    assert found.shape == expected.shape == (120, 90)
    assert expected.any()
    assert (found != expected).mean() <= 5e-3


def test_the_example_says_how_it_is_called():
    done = served()
    assert done.returncode == 1
    assert done.stderr.startswith("usage:")
