"""The one exception that means "the request or the input is wrong"."""


class InputError(ValueError):
    """The request or an input file is wrong; the message is one sentence a user can act on.

    The command line prints it on one line of stderr and exits with code 2. Every other
    exception is a bug of voxwarp and exits with code 1.
    """
