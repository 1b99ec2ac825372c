"""The front door: studies, the command line and the report.

May import: analyses, cache, hooks.
"""
