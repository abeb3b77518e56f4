"""From a scan as it is stored to what a network sees, and back.

A ``Scan`` is read, examined (what is the brain, how bright is the coil, where does it lie in the
template's space) and put on a working grid, once for all who ask. Knows grids, transforms and
measures; knows no network: what a model wants of its inputs is a ``Recipe``, which is data.
"""
