"""From a photograph to its mask: prediction, post-processing, native size."""
