"""One capture shared out over processes or Ray actors.

May import: capture, store, file, prompts, hooks.
"""
