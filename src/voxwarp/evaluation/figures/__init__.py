"""The figures of a comparison, and all its files, made from rows and from nothing else.

Where there are no rows for something, it is left out. What is drawn knows rows and statistics of
them; matplotlib is imported when something is drawn.
"""
