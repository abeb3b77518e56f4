"""World space: grids, volumes, transforms, resampling, and their files.

Everything is in RAS millimetres; ITK's LPS exists only in ``formats``. This package uses ``fields``
to interpolate. It knows nothing of brains or of registration.
"""
