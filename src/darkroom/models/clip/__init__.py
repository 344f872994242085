"""CLIP whole (Radford et al., arXiv:2103.00020): an image tower and a text tower in one space."""
