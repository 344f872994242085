"""What is known of samplers and of diffusers' scheduler classes, as data: no torch."""
