"""The command line: one file for each command, on top of the packages that do the work.

``main`` is the program, ``commands`` puts the commands together. ``command`` is what all of them
have in common (help, ``--verbose``), ``options`` what several of them take, ``pair_options`` what
those that run over pairs share. ``console`` prints messages, and ``option_names`` puts options into
them where the library names parameters. ``streams`` is for output that cannot be printed,
``interruption`` for Ctrl-C. The command line may import every package; nothing imports it. Slow
imports are inside the commands, so that help is instant.
"""

# Before all others: the first tells of Ctrl-C from now on, the second notes the time.
from . import interruption as interruption  # noqa: I001
from .. import _process as _process
