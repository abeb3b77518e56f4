"""Which scans there are: tables, folders and BIDS data sets, their splits, structures and pairs.

Nothing here looks into an image: it knows of files, tables and YAML, and not of networks or
trainings. A training, an evaluation and a benchmark all read what they run over here.
"""
