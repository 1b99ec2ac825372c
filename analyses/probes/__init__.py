"""Linear probes at every site and layer, and what belongs to them.

May import: reading, statistics, solvers, result, cache, hooks.
"""
