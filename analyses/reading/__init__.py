"""What analyses read of a store: labels, places, tasks, pairs of stores, and where they compute.

May import: statistics, solvers, result, cache, hooks.
"""
