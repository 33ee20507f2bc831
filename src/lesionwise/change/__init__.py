"""What became of each lesion between visits."""
