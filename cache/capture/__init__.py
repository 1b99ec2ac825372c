"""From a request to rows: prompts made ready, run in batches, and handed to a file or to memory.

May import: store, file, prompts, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
