"""How the shipped models are made and what was measured of them.

Run from the repository's root: `python -m tools.demo.train`, `.calibration`, `.cause`.
"""
