"""What Numba compiles in another process: lines of Python for its beginning."""

#: Afterwards, ``Compiled.names`` has the name of each function that was compiled.
LISTEN = """
from numba.core import event

class Compiled(event.Listener):
    names = []
    def on_start(self, e):
        self.names.append(e.data["dispatcher"].py_func.__name__ if "dispatcher" in e.data else "")
    def on_end(self, e):
        pass

event.register("numba:compile", Compiled())
"""
