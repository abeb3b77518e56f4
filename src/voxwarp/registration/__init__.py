"""One pair of scans: the verb, its result as a value and as a folder, and what is done with it.

Knows everything above: scans, models, pictures. Whatever works on many results, or on tables of
scans, stands below.
"""
