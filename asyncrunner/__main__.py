"""`python -m asyncrunner`, and the console script `asyncrunner`."""

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, `sys.argv` if it is not given, and exit with its code."""
    # Imported here: a spawned data loader's worker imports this module again and must not pay.
    from .cli import main as command_line

    command_line(args)


if __name__ == "__main__":
    main()
