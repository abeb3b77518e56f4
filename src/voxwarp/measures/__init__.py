"""Measures of a result: overlap of labels, properties of deformations, similarity of images.

Measures are functions of arrays, grids and transforms. They are used for registrations, for other
methods in a benchmark, and for the alignment of a scan with a template.
"""
