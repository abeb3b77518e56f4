"""How good registrations are: rows of numbers, and statistics, tables and figures made from them.

This package may import registrations and the lists of scans. The tables and figures know nothing
of a row but its columns, whichever command wrote it: ``rows`` names the columns, and ``scoring``,
``evaluate`` and ``benchmark`` fill them.
"""
