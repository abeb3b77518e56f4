"""Train a network on your own scans: configuration, preparation, sampling, losses, the loop.

This package uses the lists of scans in ``data``, the preparation and the networks. It does not
depend on registration, pictures or reports. A loss is a function with a name in ``loss_terms``;
its options are keyword-only arguments, so that a new loss needs no change in the configuration.
"""
