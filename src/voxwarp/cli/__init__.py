"""The command line: one file for each command, on top of the packages that do the work.

``main`` puts the commands together and defines how they end. ``command`` is what all of them have
in common (help, ``--verbose``), ``options`` what several of them take, ``pair_options`` what those
that run over pairs share. ``console`` prints messages, and ``option_names`` puts options into them
where the library names parameters. The command line may import every package; nothing imports it.
Slow imports are inside the commands, so that help is instant.
"""

from .. import _process as _process  # before all others, because it notes the time
