"""Photographs and masks as people have them: decoding, headers, what counts as a mask."""
