"""``python -m voxwarp``: the command line."""

from .cli.main import main

main()
