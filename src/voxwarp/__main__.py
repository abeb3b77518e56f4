"""``python -m voxwarp``: the command line."""

from .cli.main import run_and_exit

run_and_exit()
