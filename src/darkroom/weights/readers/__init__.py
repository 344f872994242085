"""Readers of checkpoint files that run nothing and import nothing from the file. No torch here."""
