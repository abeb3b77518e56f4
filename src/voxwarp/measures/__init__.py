"""Numbers that describe a result: overlap of labels, deformations, similarity of images.

A measure is a function of arrays, grids and transforms; what they are of (a registration, a
method that is compared, a scan that is aligned with a template) it does not know.
"""
