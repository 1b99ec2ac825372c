"""Which parts of a model write an answer or take it away: attribution, ablation, patching.

May import: comparison, behaviour, lens, reading, statistics, result, cache, hooks.
"""
