"""How good registrations are: rows of numbers, statistics, tables and figures of them.

It may know registrations and how they are made, and which scans there are; of a row it knows no
more than what its columns say, whoever made it. ``rows`` names the columns; ``scoring`` and the
times of ``evaluate`` and ``benchmark`` fill them.
"""
