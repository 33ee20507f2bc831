"""Files in and out: NIfTI and BIDS to studies and back."""
