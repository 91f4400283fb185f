"""What the loops and the runner are made of."""
