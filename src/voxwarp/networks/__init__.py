"""The registration functions g_θ, one file a network, and the models that carry their weights.

Networks, segmentation and descent work on tensors of prepared images. ``catalogue`` declares what
each architecture can do; ``model`` ties weights to it and to the recipe of the inputs.
"""
