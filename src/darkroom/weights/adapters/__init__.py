"""Files of adapters: found by name, read, fitted to a model, and written back."""
