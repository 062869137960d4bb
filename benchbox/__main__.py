"""`python -m benchbox` is `benchbox`."""

from benchbox.cli import main

main()
