"""Every colour of the charts, galleries and the report page: one colour per meaning.

From the colour-blind safe set of Okabe and Ito (2008, "Color Universal Design"). The truth is blue and the prediction
orange, in outlines as in error maps: a pixel that was missed, in the truth alone, is blue, and a false alarm, in the
prediction alone, is orange.
"""

from lesionseg.inference import outline

TRUTH = outline.TRUTH  # of the true outline; in error maps, lesion that was missed (false negative)
PREDICTION = outline.PREDICTION  # of the predicted outline; in error maps, false alarm (false positive)
AGREEMENT = "#f2f2f2"  # near white: lesion in both (true positive)

TRAINING = "#999999"  # grey: the training split in the training curves
VALIDATION = "#0072b2"  # blue: the validation split in the training curves

SPLITS = {  # charts that compare splits
    "train": TRAINING,
    "val": VALIDATION,
    "test": "#e0a6c8",  # light reddish purple
    "official_validation": "#009e73",  # bluish green
    "official_test": "#d55e00",  # vermillion
    "external": "#000000",  # black
}
SCORES = {  # charts that compare scores
    "dice": "#0072b2",  # blue
    "iou": "#56b4e9",  # sky blue
    "precision": "#d55e00",  # vermillion
    "recall": "#009e73",  # bluish green
}
INK = "#262626"  # text and axes
FAINT = "#b3b3b3"  # references, such as the diagonal of a calibration chart

ALL = (TRUTH, PREDICTION, AGREEMENT, INK, FAINT, *SPLITS.values(), *SCORES.values())

hex_to_rgb = outline.hex_to_rgb
