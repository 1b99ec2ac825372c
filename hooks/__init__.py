"""Run a Hugging Face model and read, or edit, what passes through each layer.

May import: nothing of ours.
"""
