"""The exception for wrong requests and wrong inputs."""


class InputError(ValueError):
    """A request or an input file is wrong; the message says what, and what to do.

    The command line prints the message on one line of stderr and exits with code 2. Any other
    exception is a bug in voxwarp and exits with code 1.
    """


class NotEnoughMemoryError(InputError):
    """There is less memory than a request takes; later there may be more."""


class NotEnoughSpaceError(InputError):
    """There is less room on a disk than a result takes."""
