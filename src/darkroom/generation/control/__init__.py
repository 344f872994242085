"""Guiding what is drawn: by hints and by depth."""

from darkroom.generation.control.feature import Control

__all__ = ["Control"]
