"""The registration functions g_θ, one file a network, and the models that carry their weights.

Networks, segmentation and descent work on tensors of prepared images. ``catalogue`` declares what
each architecture can do, and what it needs beside the two images (``further_inputs``). What pulls
when a pair is optimised, be it as a model or as a refinement, stands in ``descent``. ``model`` ties
weights to an architecture and to the recipe of the inputs.
"""
