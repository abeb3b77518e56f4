"""Calculus of images and fields as tensors: sampling, flows, filters, losses, bounding boxes.

Everything is in voxels of (B, C, X, Y, Z) tensors. Nothing here knows of millimetres, files, scans
or networks.
"""
