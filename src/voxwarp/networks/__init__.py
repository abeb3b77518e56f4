"""The networks, one file each, and the models, which hold their weights.

A network takes tensors of two prepared images, moving and fixed, and returns a ``Deformation``.
``catalogue`` lists the architectures, with what each can do and which other inputs it needs.
``descent`` optimises the deformation of a single pair, as a model of its own (``pair_descent``) or
as a refinement of another model's result (``refine``). ``model`` ties weights to an architecture
and to the recipe by which the images are prepared.
"""
