"""From prepared arrays to trained weights, and from weights to maps."""
