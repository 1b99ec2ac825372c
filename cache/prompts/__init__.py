"""The prompt table: what is read of it, how it becomes tokens, and which tokens become rows.

May import: hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
