"""The per-layer report: one HTML file that opens offline."""
