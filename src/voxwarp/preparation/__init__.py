"""From a scan as it is stored to what a network sees, and back.

A ``Scan`` is read, examined (what is the brain, how bright is the coil, where does it lie in the
template's space) and put on a working grid, once for all who ask. Knows grids, transforms and
measures; knows no network: lattice, space and scale of a model's images are a ``Recipe``, which is
data; what a network is given beside them is ``scan.Prepared.further``. ``brain`` tells heads from
brains, ``examination`` puts the steps together, ``cache`` remembers what they found: whoever
changes what is found raises ``cache.EXAMINATION``.
"""
