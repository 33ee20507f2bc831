"""Lesions told apart, filtered and matched."""
