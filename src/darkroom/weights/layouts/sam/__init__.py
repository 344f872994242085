"""Where checkpoints keep segment anything."""
