"""Calculus of tensors on a lattice: sampling and flows, filters, costs, the box of what is there.

Everything is in voxels of (B, C, X, Y, Z) tensors. Nothing here knows of millimetres, files, scans
or networks.
"""
