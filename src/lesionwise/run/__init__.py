"""The commands as functions: all control flow, one file per command."""
