"""Review of saved results: an overview page of many, and a viewer of one in three dimensions.

The modules read folders that ``registration`` wrote, and draw with ``pictures``. They do not change
the results.
"""
