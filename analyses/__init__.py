"""One room per question asked of activations.

May import: cache, hooks.
"""
