"""Scores of a trained network on images it has not seen."""
