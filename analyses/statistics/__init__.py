"""Groups, splits, resampling, intervals and metrics: pure functions on arrays.

May import: cache, hooks.
"""
