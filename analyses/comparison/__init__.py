"""Base against instruct: the same prompts, paired, by layer.

May import: lens, separation, reading, statistics, result, cache, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
