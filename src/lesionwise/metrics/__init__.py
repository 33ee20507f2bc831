"""Every number that compares a prediction with a reference."""
