"""``python -m voxwarp``: the command line."""

from .cli.main import run_and_exit

if __name__ == "__main__":  # processes of a cohort import this module under another name
    run_and_exit()
