"""From a folder or a hub id to a loaded model, with the identity of what was loaded.

May import: architecture, engines and the modules of hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
