"""The output folder: names, sidecars and tables of all commands, written and read again."""
