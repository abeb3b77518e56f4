"""Compiled loops over volumes: one pass over memory where PyTorch makes thirty.

Numba compiles these functions for the processor at hand; ``fields.compiled`` calls them. A kernel
works on the planes ``first`` ≤ i < ``last`` of the first spatial axis of its result, so that
threads can share a volume; what a plane becomes does not depend on how they share it.

Arrays are C-contiguous float32, (X, Y, Z) for images and (C, X, Y, Z) for fields; displacements are
in voxels, and every spatial axis has two voxels or more. The plain twins in ``field``, ``filters``,
``networks.forces`` and ``space.resample`` say what is computed; the tests compare with them.
"""
