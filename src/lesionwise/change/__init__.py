"""The state of each lesion between visits."""
