"""From a table of prompts to activations on disk, and back.

May import: hooks.
"""
