"""What an analysis returns: a tidy table, findings, directions; and its words and pictures.

May import: cache, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
