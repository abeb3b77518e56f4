"""Looking at results that were saved: many on one page, one in three dimensions.

It reads folders as ``registration`` wrote them and draws with ``pictures``; it registers nothing
and changes nothing in what it shows.
"""
