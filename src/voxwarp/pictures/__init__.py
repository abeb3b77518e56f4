"""What one registration looks like: slices, panels of pictures, the report, figures for a notebook.

It knows volumes, grids and transforms, and records as plain mappings, whatever wrote them; it does
not know a registration, nor where a result lies on disk. A panel is a function in ``panels``, and
the report, a notebook and a figure show all that are there. What a page says in words and tables
stands in ``templates``.
"""
