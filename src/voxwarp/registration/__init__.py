"""Register a pair of scans, save and load the result, and apply it to images and points.

Uses the packages above: scans, models, pictures. Work on many results or on tables of scans is in
the packages below.
"""
