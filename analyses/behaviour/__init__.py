"""What a model does on contrastive pairs, and where such pairs come from.

May import: lens, reading, statistics, result, cache, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
