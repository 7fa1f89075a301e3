"""Own photographs under profiles/private.txt: after a whole run nothing of them is in what git has or would take."""

import sys

import numpy as np
import pytest
from PIL import Image

from conftest import clone_repository, overlay
from tiny_data import lesion, picture

pytestmark = pytest.mark.slow

TELLING = ("Mustermann", "Sauerbruch", "Musterstadt")  # in names of files, and in columns of the tables beside them


def test_no_name_and_no_picture_is_in_any_file_that_git_has_or_would_take(tmp_path):
    clone = clone_repository(tmp_path / "clone")
    own = clone.root / "data/mine"
    (own / "images").mkdir(parents=True)
    (own / "masks").mkdir()
    rows = []
    for number in range(12):
        name = f"Mustermann_Erika_{number}"
        mask = lesion(number, 80, 64)
        Image.fromarray(picture(number, mask)).save(own / f"images/{name}.jpg")
        Image.fromarray(mask * np.uint8(255)).save(own / f"masks/{name}_segmentation.png")
        rows.append(f"{name},{('Sauerbruch', 'Dr. Sauerbruch')[number % 2]},Musterstadt {number % 3}")
    (own / "metadata.csv").write_text("\n".join(["id,doctor,place", *rows, ""]), encoding="utf-8")
    (own / "groups.csv").write_text(
        "\n".join(["id,patient", *(row.replace("Dr. ", "").rpartition(",")[0] + row[-1] for row in rows), ""]),
        encoding="utf-8",
    )
    settings = [*overlay("tiny.txt"), *overlay("private.txt"), "-S", "download.source=folder"]  # after tiny's synthetic
    clone.run(sys.executable, "tools/own.py", "data/mine")
    clone.run("git", "commit", "--all", "--quiet", "--message", "my photographs")
    clone.dvc("exp", "run", *settings, "-S", "download.folder=data/mine")
    for table, word in (("names.csv", "Mustermann"), ("metadata.csv", "Sauerbruch")):  # they were there to leak
        assert word in (clone.root / "data/raw" / table).read_text(encoding="utf-8")
    clone.run("git", "add", "--all")  # what a user commits
    taken = clone.run("git", "ls-files", "-coz", "--exclude-standard").stdout.split("\0")
    files = {name: (clone.root / name).read_bytes() for name in taken if name and (clone.root / name).is_file()}
    assert "metrics/evaluation.json" in files
    said = {name: content for name, content in files.items() if name != "tests/test_private_run.py"}
    for word in TELLING:
        assert not [name for name, content in said.items() if word in name or word.encode() in content], word
    photographs = {path.read_bytes() for path in own.glob("*/*") if path.is_file()}
    assert photographs
    assert photographs.isdisjoint(files.values())
    for name in ("plots/samples.png", "plots/gallery.png"):
        with Image.open(clone.root / name) as notice:
            assert (notice.mode, notice.height) == ("L", 60), name
    results = [name for name in files if name.startswith(("plots/", "data/", "models/"))]
    drawn = [name for name in results if name.endswith((".png", ".jpg", ".npy"))]
    assert set(drawn) == {"plots/samples.png", "plots/gallery.png"}
