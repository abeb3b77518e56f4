"""Other tools and ours on the same pairs, from the same affine map, each in a process of its own.

It may know everything that scores registrations, and is the only place that knows other tools.
"""
