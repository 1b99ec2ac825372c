"""One module per library that can run a model for us; each is imported only when it is asked for.

May import: the modules of hooks, architecture.
"""
