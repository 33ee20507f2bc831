"""Many studies: one table, resumable."""
