"""Pure solvers on arrays.

May import: hooks.errors.
"""
