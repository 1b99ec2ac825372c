"""How far labelled groups of rows lie apart, and what structure there is besides.

May import: reading, statistics, result, cache, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
