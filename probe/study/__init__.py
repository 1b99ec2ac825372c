"""Studies: a file that names models, prompts and questions, and the run that answers them.

May import: report, results, demo, analyses, cache, hooks.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
