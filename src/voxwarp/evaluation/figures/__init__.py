"""The figures of a comparison, made from rows alone.

A figure without rows is left out. Only rows and their statistics are used; matplotlib is imported
when something is drawn.
"""
