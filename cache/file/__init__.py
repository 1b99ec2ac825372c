"""The HDF5 file: its layout, how it is made, written, committed and opened (cache/FORMAT.md).

May import: prompts, hooks.
"""
