"""The command line: one file a command, over the verbs of the packages above it.

``main`` puts the commands together and says how they end, ``options`` has what several of them
take, ``pairs`` what those that run over pairs share, ``console`` what is told beside results. It
may know every package; nothing imports it. What is heavy is imported inside the commands.
"""
