"""How far a probe holds: cross-validation, learning curves, codelength, other datasets and domains.

May import: probes, reading, statistics, solvers, result, cache, hooks.
"""
