"""Arguments of the commands, handed to the functions that do the work."""


def main() -> None:
    raise SystemExit(0)
