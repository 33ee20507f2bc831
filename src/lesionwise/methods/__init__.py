"""The engines a recipe can name."""
