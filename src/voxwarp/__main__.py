"""``python -m voxwarp``: the command line."""

from .cli import main

main()
