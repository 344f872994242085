"""Beside the loop of a run: signals and trackers."""
