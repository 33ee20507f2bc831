"""Many subjects at once: a BIDS App that spreads them over processes and continues after a kill."""
