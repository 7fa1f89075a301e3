"""MODEL_CARD.md: a head that hubs read, the scores of the evaluation, and nothing of a user's own photographs."""

import json
import re

import cv2
import pytest
import yaml

from lesionseg.common.files import read_csv
from tiny_data import run_stage, write_data, write_model

SPLITS = ["val", "train", "val", "official_test", "val"] * 4
TRAINED = {"train.keep": "best", "train.learning_rate": 1e-3, "train.gradient_clip": None, "train.compile": False}


def evaluate(root, network, source, **changes):
    write_data(root, SPLITS, source=source)
    write_model(root, network, **TRAINED, versions={"torch": "2.13.0"})
    (root / "data/raw/LICENSE.txt").write_text("Research only.\n| a | [bar](https://example.org)\n", encoding="utf-8")
    rows = "".join(f"ISIC_{index:07d},{'<b>nevus|' if index % 2 else 'melanoma'}\n" for index in range(len(SPLITS)))
    (root / "data/raw/metadata.csv").write_text(f"id,diagnosis\n{rows}", encoding="utf-8")
    run_stage(root, "evaluate", bootstrap_samples=100, **changes)
    return root / "models/lesion-segmentation"


@pytest.fixture(scope="module")
def official(tmp_path_factory, network):
    return evaluate(tmp_path_factory.mktemp("official"), network, "isic2018", threshold_from="val", fill_holes=True)


def text_of(folder):
    return (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def head_of(folder):
    opening, head, _ = text_of(folder).split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(head)


def test_the_head_is_what_hubs_read_with_the_scores_of_the_evaluation(official):
    head = head_of(official)
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("mit", "lesionseg", "image-segmentation")
    assert {"dermoscopy", "unet"} <= set(head["tags"])
    (model,) = head["model-index"]
    scored = json.loads((official.parents[1] / "metrics/evaluation.json").read_text())
    assert [result["dataset"]["split"] for result in model["results"]] == ["val", "official_test"]
    for result in model["results"]:
        assert result["task"]["type"] == "image-segmentation"
        assert result["dataset"]["type"] == "isic2018"
        found = {metric["type"]: metric["value"] for metric in result["metrics"]}
        expected = scored[result["dataset"]["split"]]
        assert found["dice"] == pytest.approx(expected["per_image"]["dice"], abs=5e-5)
        assert found["threshold_jaccard"] == pytest.approx(expected["official"]["threshold_jaccard"], abs=5e-5)
        assert set(found) == set(head["metrics"])


def test_it_says_what_the_model_was_made_of_and_how_well_it_does(official):
    text = text_of(official)
    detail = json.loads((official.parents[1] / "data/evaluation/detail.json").read_text())["splits"]
    val = detail["val"]["per_image"]
    assert f"| {val['dice']:.4f} ({val['dice_low']:.4f} to {val['dice_high']:.4f}) |" in text
    assert f"{detail['val']['calibration']['expected_calibration_error']:.4f}" in text
    for words in (
        "Not a medical device",
        "dark skin is hardly present",
        "CC-0",
        "10.1038/sdata.2018.161",
        "Groups that are on both sides nevertheless: 0.",
        "the epoch (train.keep: best) was chosen by them",
        f"{detail['official_test']['threshold']} (chosen on val)",
        "with torch 2.13.0",
        "| `train.learning_rate` | 0.001 |",
        "| `train.gradient_clip` | null |",
        "| training | 4 | 4 |",
        "fill_holes true",
    ):
        assert words in text, words
    assert "Research only" not in text, "ISIC 2018 has its own attribution, which is on the card"


def test_its_tables_are_whole_whatever_the_names_in_them(official):
    tables = re.findall(r"(?:^\|.*\|\n)+", text_of(official), re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "<b>" not in text_of(official)
    assert "&#60;b&#62;nevus&#124;" in text_of(official)
    assert "{{" not in text_of(official)


def test_the_worst_images_are_shown(official):
    text = text_of(official)
    assert "![The worst segmentations](worst.png)" in text
    sheet = cv2.imread(str(official / "worst.png"))
    assert sheet.shape == (2 * 224 + 4, 4 * 224 + 3 * 4, 3)
    names = re.search(r"^Validation: (ISIC.*)\.$", text, re.MULTILINE)[1].split(", ")
    rows = read_csv(official.parents[1] / "plots/per_image.csv")
    worst = sorted((float(row["dice"]), row["id"]) for row in rows if row["split"] == "val")[:4]
    assert [name.partition(" ")[0] for name in names] == [name for _, name in worst]


def test_photographs_and_names_of_a_users_own_set_stay_at_home(tmp_path, network):
    folder = evaluate(tmp_path, network, "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "model.safetensors"]
    text = text_of(folder)
    assert "ISIC_00" not in text
    assert "worst.png" not in text
    assert head_of(folder)["license"] == "other"
    assert "\n    Research only.\n    | a | [bar](https://example.org)\n" in text, "a block of code"


def test_an_ensemble_has_its_members_beside_it(tmp_path, network):
    state, metadata = network
    both = {f"members.{number}.{name}": tensor.clone() for number in range(2) for name, tensor in state.items()}
    folder = evaluate(tmp_path, (both, metadata | {"members": 2}), "synthetic")
    text = text_of(folder)
    assert "2 members whose probabilities are averaged" in text
    rows = re.findall(r"^\| (?:ensemble|member 1|member 2) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 3
    assert len(set(rows)) == 1, "members that are the same have the same scores"
