"""`python -m benchbox` is `benchbox`; who stops it while it loads reads one line."""

import sys


def main() -> int:
    """The console script."""
    try:
        from benchbox.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("benchbox: interrupted\n")
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
