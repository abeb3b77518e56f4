"""Training a network on one's own scans: configuration, preparation, sampling, losses, the loop.

Knows the scans that are listed in ``data``, the preparation and the networks; of a registration
that a user runs, or of pictures and pages, it knows nothing. A loss is a function with a name in
``losses``; its keyword-only arguments are its options, and the configuration need not know it.
"""
