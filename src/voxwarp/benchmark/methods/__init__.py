"""The methods of a benchmark: how each tool is called to deform one scan onto another.

All methods get the same two brains and the same affine map between them, and write the deformable
part as ITK displacement fields. A method gets its ``Run`` and imports its tool when it runs.
"""
