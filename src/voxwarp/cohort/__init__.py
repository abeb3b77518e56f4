"""Whole cohorts: a BIDS App that registers every scan of a data set to one template.

``dataset`` finds the scans, ``plan`` says which of them are to be done and why, ``job`` registers
one in a worker process, ``engine`` runs the jobs with dask and looks after them, ``ledger`` keeps
what was done, ``derivatives`` knows the names and sidecars of BIDS, ``run`` puts it together, and
``group`` and ``pages`` sum up the results.
"""
