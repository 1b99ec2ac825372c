"""The one error that layerprobe raises about what a user gave it."""


class LayerprobeError(ValueError):
    """Bad input: the message says what was given, what was expected and what to do next.

    The command line prints it on one line and exits with code 2.

    >>> from layerprobe import open_store
    >>> try:
    ...     open_store("no/such/file.h5")
    ... except LayerprobeError as error:
    ...     print("no/such/file.h5" in str(error))
    True
    """
