"""Guiding what is drawn: by depth."""
