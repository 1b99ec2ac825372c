"""The one error that layerprobe raises about what a user gave it."""


class LayerprobeError(ValueError):
    """Bad input: the message says what was given, what was expected and what to do next.

    The command line prints it on one line and exits with code 2.
    """
