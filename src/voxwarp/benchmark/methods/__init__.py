"""The methods of a benchmark: how each is told to deform one scan onto another.

All get the same two brains and the same affine map between them, and leave the deformable part
as ITK's files. A method knows its run, and imports what it needs when it runs.
"""
