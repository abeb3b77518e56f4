"""Where things are in the world: grids, volumes, transforms, resampling, and their files.

Everything is in RAS millimetres; ITK's LPS stands in ``formats`` and nowhere else. It may know the
fields it interpolates with, but not what a scan shows, nor who registers it.
"""
