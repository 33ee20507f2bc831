"""Many subjects at once: a BIDS App that spreads them over processes and goes on after a kill."""
