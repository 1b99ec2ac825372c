"""The per-layer report: one HTML file that opens offline, and the same as JSON.

May import: results, analyses.
"""
