"""Counts of pixels and the scores that are functions of them."""
