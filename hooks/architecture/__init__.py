"""Where each architecture keeps its parts, and which module carries a site.

May import: hooks.sites, hooks.errors.
"""
