"""Reward models and graded scores: preference dimensions and what a reward rests on.

May import: probes, reading, statistics, result, cache, hooks.
"""
