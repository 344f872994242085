"""What the commands share that look at pictures instead of drawing them."""
