"""Answers and foils read through a lens, layer by layer, and where an answer is lost.

May import: reading, statistics, result, cache, hooks.
"""
