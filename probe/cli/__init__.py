"""The command line.

May import: study, report, results, demo.
"""

from ..._moved import names_of

__getattr__ = names_of(__name__)  # what lay in the module of this name
