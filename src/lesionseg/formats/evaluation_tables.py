"""Names and columns of the tables that the evaluation writes and the pictures are drawn from."""

SAMPLES = ("id", "split", "index")  # of data/evaluation/samples.csv; index: the row in the processed arrays
PER_IMAGE = ("id", "split")  # the first columns of plots/per_image.csv; scores and properties follow
# plots/<name>.csv -> its columns, a row per point of each split
CURVES = {
    "thresholds": ("split", "threshold", "dice", "iou", "precision", "recall", "dice_per_image", "iou_per_image"),
    "calibration": ("split", "predicted", "observed", "pixels"),
    "precision_recall": ("split", "recall", "precision", "threshold"),
    "roc": ("split", "false_positive_rate", "true_positive_rate", "threshold"),
    "confusion": ("split", "actual", "predicted", "count"),
}
