"""The Alignment Quality Index: one representation out of many layers, and how separate it is.

May import: separation, statistics, result, cache, hooks.
"""
