"""Segmenters that learn from composed scenes."""
