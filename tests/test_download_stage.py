"""The download stage: what each parameter changes, and nothing left behind by a run that failed."""

import hashlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from isic_archives import official
from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv
from lesionseg.formats import groups, manifest, metadata
from loopback import Server
from test_folder import outline, photograph

REPOSITORY = Path(__file__).parents[1]
STAGE = REPOSITORY / "stages/download.py"
SMALL = {"synthetic_images": 3}  # quick to draw


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty directory to run the stage in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def download(runtime: dict | None = None, **changes) -> list[manifest.Pair]:
    """Run the stage in this process, with the repository's parameters but for `changes`; return its manifest."""
    parameters = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    unknown = changes.keys() - parameters["download"].keys()
    content = {
        "download": parameters["download"] | changes,
        "runtime": parameters["runtime"] | {"workers": 1} | (runtime or {}),
    }
    assert not unknown
    Path("params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    runpy.run_path(str(STAGE))["main"]()
    return manifest.read(Path("data/raw"))


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def own_pairs(folder: Path, names: str) -> None:
    for name in names:
        photograph(folder / f"{name}.png", (40 + ord(name) % 8, 30))
        outline(folder / f"{name}_mask.png", (40 + ord(name) % 8, 30))


# What each parameter changes


def test_source_picks_where_pairs_come_from(workspace):
    own_pairs(workspace / "data/own", "abc")
    for name, content in official({"training": range(4)}).items():
        (workspace / name).write_bytes(content)
    found = {
        source: [pair.id for pair in download(source=source, archives=".", **SMALL)]
        for source in ("synthetic", "folder", "isic2018")
    }
    assert found == {
        "synthetic": ["SYNTH_0000000", "SYNTH_0000001", "SYNTH_0000002"],
        "folder": ["a", "b", "c"],
        "isic2018": ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002", "ISIC_0000003"],
    }


def test_folder_names_the_directory(workspace):
    own_pairs(workspace / "one", "ab")
    own_pairs(workspace / "two/deeper", "cde")
    assert [pair.id for pair in download(source="folder", folder="one")] == ["a", "b"]
    assert [pair.id for pair in download(source="folder", folder=str(workspace / "two/deeper"))] == ["c", "d", "e"]


def test_private_ids_tell_nothing_of_names_and_stay_when_images_come(workspace, capsys):
    own = workspace / "data/own"
    own_pairs(own / "train", "bc")
    own_pairs(own / "val", "d")
    (own / "metadata.csv").write_text("id,lesion,sex\nb,l1,f\nc,l1,\nd,l2,m\n", encoding="utf-8")
    assert [pair.id for pair in download(source="folder")] == ["b", "c", "d"]
    assert "make exp PROFILE=private" in capsys.readouterr().err
    assert not Path("data/raw/names.csv").exists()

    pairs = download(source="folder", private_ids=True)
    assert capsys.readouterr().err == ""
    assert all(re.fullmatch("image_[0-9a-f]{12}", pair.id) for pair in pairs)
    names = {row["id"]: row["name"] for row in read_csv("data/raw/names.csv")}
    assert sorted(names.values()) == ["b", "c", "d"]
    assert {names[pair.id]: pair.subset for pair in pairs} == {"b": "training", "c": "training", "d": "given_val"}
    for pair in pairs:
        [original] = own.rglob(f"{names[pair.id]}.png")
        assert (Path("data/raw") / pair.image).read_bytes() == original.read_bytes()
    assert {names[image]: group for image, group in groups.read(Path("data/raw"))} == {
        "b": "lesion:l1", "c": "lesion:l1", "d": "lesion:l2",
    }  # fmt: skip
    assert {names[image]: row["sex"] for image, row in metadata.read(Path("data/raw")).rows.items()} == {
        "b": "f", "c": "", "d": "m",
    }  # fmt: skip

    own_pairs(own / "train", "a")
    shutil.copyfile(own / "train/b.png", own / "train/b2.png")
    shutil.copyfile(own / "train/b_mask.png", own / "train/b2_mask.png")
    more = {pair.id for pair in download(source="folder", private_ids=True)}
    assert len(more) == 5, "the same photograph twice is two images"
    assert names.keys() <= more


def test_private_ids_are_those_of_an_external_set_too(workspace):
    own_pairs(workspace / "data/own", "ab")
    own_pairs(workspace / "other", "cd")
    pairs = download(source="folder", external="other", private_ids=True)
    names = {row["id"]: row["name"] for row in read_csv("data/raw/names.csv")}
    assert {names[pair.id]: pair.subset for pair in pairs if pair.subset == "external"} == {
        "c": "external", "d": "external",
    }  # fmt: skip
    assert all(re.fullmatch("(external_)?image_[0-9a-f]{12}", pair.id) for pair in pairs)
    assert not list(Path("data/raw/external").glob("*.csv"))


def test_keep_splits_keeps_the_split_that_own_data_came_in(workspace):
    own_pairs(workspace / "data/own/train", "abc")
    own_pairs(workspace / "data/own/val", "de")
    kept, divided = (download(source="folder", keep_splits=keep) for keep in (True, False))
    assert [pair.subset for pair in kept] == ["training"] * 3 + ["given_val"] * 2
    assert [pair.subset for pair in divided] == ["training"] * 5


def test_an_external_set_is_read_like_the_own_data_and_brings_its_tables(workspace):
    """Its masks by the same labels and ending; its split is none, as all of it is evaluated."""
    own_pairs(workspace / "data/own", "ab")
    for split, name in (("train", "y"), ("val", "z")):
        photograph(workspace / f"other/{split}/{name}.png")
        outline(workspace / f"other/{split}/{name}_expert.png", white=7)
    for folder, rows in (("data/own", "a,p,f\nb,q,m\n"), ("other", "y,p,f\nz,r,m\n")):
        Path(folder, "metadata.csv").write_text(f"id,patient,sex\n{rows}")
    pairs = download(source="folder", external="other", mask_lesion="7+255", mask_suffix="_expert")
    subsets = {pair.id: pair.subset for pair in pairs}
    assert subsets == {"a": "training", "b": "training", "external_y": "external", "external_z": "external"}
    for pair in pairs:
        with Image.open(Path("data/raw", pair.mask)) as mask:
            assert set(mask.get_flattened_data()) == {0, 255}
    patients = dict(groups.read(Path("data/raw")))
    assert patients["a"] == patients["external_y"] != patients["external_z"]
    known = metadata.read(Path("data/raw"))
    assert [known.value(name, "sex") for name in subsets] == ["f", "m", "f", "m"]
    assert sorted(path.name for path in Path("data/raw/external").iterdir()) == ["images", "masks"]


@pytest.mark.parametrize("source", ["synthetic", "folder", "isic2018"])
def test_limit_takes_a_nested_subset_of_every_source(workspace, source):
    own_pairs(workspace / "data/own", "abcdef")
    for name, content in official({"training": range(6)}).items():
        (workspace / name).write_bytes(content)
    few, more, every = (
        download(source=source, archives=".", synthetic_images=6, limit=limit) for limit in (2, 4, None)
    )
    assert (len(few), len(more), len(every)) == (2, 4, 6)
    assert set(few) < set(more) < set(every)
    with pytest.raises(InputError, match=r"download\.limit: found 7, but .* 6"):
        download(source=source, archives=".", synthetic_images=6, limit=7)


def test_seed_picks_the_subset_and_draws_the_images(workspace):
    own_pairs(workspace / "data/own", "abcdefgh")
    subsets = {tuple(pair.id for pair in download(source="folder", limit=4, seed=seed)) for seed in range(4)}
    assert len(subsets) > 1
    images = [{pair.image_sha256 for pair in download(seed=seed, **SMALL)} for seed in range(2)]
    assert images[0].isdisjoint(images[1])


def test_synthetic_images_says_how_many_are_drawn(workspace):
    few, more = download(synthetic_images=2), download(synthetic_images=4)
    assert (len(few), len(more)) == (2, 4)
    assert more[:2] == few


@pytest.mark.parametrize(("test_set", "size"), [("none", 0), ("validation", 3), ("test", 5)])
def test_test_set_adds_an_official_set_whole(workspace, test_set, size):
    archives = official({"training": range(4), "validation": range(10, 13), "test": range(20, 25)})
    for name, content in archives.items():
        (workspace / name).write_bytes(content)
    pairs = download(source="isic2018", archives=".", limit=2, test_set=test_set)
    assert sum(pair.subset == "training" for pair in pairs) == 2
    assert sum(pair.subset == test_set for pair in pairs) == size
    assert len(pairs) == 2 + size


def test_test_set_needs_the_source_that_has_one(workspace):
    with pytest.raises(InputError, match=r"download\.test_set: found test, but the source synthetic has no"):
        download(test_set="test", **SMALL)
    assert not (workspace / "data").exists()


def test_base_url_names_the_server(workspace):
    with Server(official({"training": range(4)})) as server:
        pairs = download(source="isic2018", base_url=server.url, limit=2)
        asked = len(server.requests)
    assert [pair.source for pair in pairs] == ["isic2018"] * 2
    assert asked > 0


def test_archives_at_hand_are_not_fetched(workspace):
    for name, content in official({"training": range(4)}).items():
        (workspace / "mine").mkdir(exist_ok=True)
        (workspace / "mine" / name).write_bytes(content)
    with Server({}) as server:
        pairs = download(source="isic2018", base_url=server.url, archives="mine")
        assert server.requests == []
    assert len(pairs) == 4


def test_runtime_changes_no_byte(workspace):
    """For the synthetic source, whose workers are processes, see test_synthetic.py."""
    own_pairs(workspace / "data/own", "abcdefghijkl")
    results = []
    for workers in (None, 0, 1, 4):
        download(source="folder", limit=9, runtime={"workers": workers, "device": "cpu"})
        results.append(contents(workspace / "data/raw"))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "isic"),
        ("source", None),
        ("folder", ""),
        ("folder", 3),
        ("limit", 0),
        ("limit", "500"),
        ("limit", 2.5),
        ("seed", -1),
        ("synthetic_images", 0),
        ("synthetic_images", None),
        ("synthetic_images", True),
        ("test_set", "all"),
        ("base_url", "ftp://mirror.example"),
        ("archives", ""),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_written(workspace, key, value):
    with pytest.raises(InputError, match=rf"params\.yaml: download\.{key}: found {value!r}, expected"):
        download(**{key: value})
    assert [path.name for path in workspace.iterdir()] == ["params.yaml"]


# Whole or absent


def test_what_was_there_before_is_replaced(workspace):
    own_pairs(workspace / "data/own", "ab")
    download(synthetic_images=5)
    download(source="folder")
    assert sorted(contents(workspace / "data/raw")) == [
        "images/a.png",
        "images/b.png",
        "manifest.csv",
        "masks/a_segmentation.png",
        "masks/b_segmentation.png",
    ]


def test_what_a_killed_run_left_is_cleared(workspace):
    leftover = workspace / "data/.raw.partial/images"
    leftover.mkdir(parents=True)
    (leftover / "half.jpg").write_bytes(b"half")
    download(**SMALL)
    assert [path.name for path in (workspace / "data").iterdir()] == ["raw"]
    assert "half.jpg" not in {path.name for path in (workspace / "data").rglob("*")}


def test_a_failure_half_way_leaves_nothing_and_spares_what_was_there(workspace, monkeypatch):
    own_pairs(workspace / "data/own", "abc")
    download(**SMALL)
    before = contents(workspace / "data/raw")

    def no_space(source: Path, target: Path) -> str:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("lesionseg.download.folder._copy", no_space)
    with pytest.raises(OSError, match="No space left"):
        download(source="folder")
    assert contents(workspace / "data/raw") == before
    assert sorted(path.name for path in (workspace / "data").iterdir()) == ["own", "raw"]


def test_bad_input_ends_with_status_1_and_no_traceback(workspace):
    own_pairs(workspace / "data/own", "ab")
    (workspace / "data/own/a_mask.png").unlink()
    (workspace / "data/own/b.png").unlink()
    parameters = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    parameters["download"]["source"] = "folder"
    (workspace / "params.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    result = subprocess.run([sys.executable, STAGE], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "download: error: data/own/a.png: no mask for this image; expected a_segmentation.png or the like",
        "download: error: data/own/b_mask.png: no image for this mask; expected b.jpg or the like",
    ]
    assert [path.name for path in (workspace / "data").iterdir()] == ["own"]
