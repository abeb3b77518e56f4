"""Lists of scans: tables, folders and BIDS data sets, with splits, structures and pairs.

This package reads file names, tables and YAML. It does not open images, and does not depend on
networks or training. Training, evaluation and the benchmark all get their scans here.
"""
