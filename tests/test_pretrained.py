"""The model that comes with the repository loads, and outlines a lesion that it has never seen the like of."""

import numpy as np

import lesionseg
from conftest import REPOSITORY
from lesionseg.download.dermoscopy import draw_photograph
from lesionseg.formats import weights_file
from lesionseg.networks import weights

FOLDER = REPOSITORY / "models/pretrained"


def test_it_outlines_lesions_that_are_drawn():
    model = lesionseg.load(FOLDER)
    overlaps = []
    for number in range(4):
        photograph, truth = draw_photograph(0, number)
        mask, truth = model.predict(photograph) > 0, truth > 0
        assert mask.shape == truth.shape
        overlaps.append(2 * np.sum(mask & truth) / (mask.sum() + truth.sum()))
    assert np.mean(overlaps) > 0.7, overlaps  # trained on photographs alone


def test_its_card_speaks_of_the_recipe_in_the_file():
    _, metadata = weights.load(FOLDER / weights_file.MODEL_FILE)
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| `train.epochs` | {metadata['train.epochs']} |" in card
    assert "Not a medical device" in card
