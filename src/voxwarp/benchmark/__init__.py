"""Compare other tools and voxwarp on the same pairs, from the same affine map.

Each run is a process of its own. This package may import everything that scores registrations,
and it is the only one that imports other tools.
"""
