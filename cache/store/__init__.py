"""Activations with everything that is known of their rows, from a file, an index or memory.

May import: file, prompts, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
