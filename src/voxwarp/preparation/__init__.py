"""Preparation: from a scan, as it is stored, to the input of a network.

A ``Scan`` is read, examined (head or brain, brain mask, bias field, affine map from the template)
and resampled onto a working grid, once for everybody who needs it. Working grid, working space and
scale of intensities are a ``Recipe``, which belongs to a model. The package knows grids, transforms
and measures, but no networks.

Modules: ``brain`` decides between heads and skull-stripped brains and extracts brains,
``examination`` puts the steps together, and ``cache`` keeps their results. After a change of
the results, raise ``cache.EXAMINATION``.
"""
