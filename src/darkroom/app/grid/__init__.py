"""X/Y/Z grids: axes, their cells, drawing what is missing, and the sheets."""
