"""Pictures of one registration: slices, panels, the report, figures for a notebook.

The modules take volumes, grids and transforms, and a record as a plain mapping; they do not depend
on ``registration`` or on how results are saved. Each panel is a function in ``panels``; the report,
notebooks and figures show all panels. The text of the pages is in ``templates``.
"""
