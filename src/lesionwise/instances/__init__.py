"""Lesions separated, filtered and matched."""
