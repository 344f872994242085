"""What Stable Diffusion XL adds to a run: sizes that it is told, and a refiner that takes over."""
