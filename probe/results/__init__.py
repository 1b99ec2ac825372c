"""The results folder of a study or of single analyses.

May import: analyses.
"""
