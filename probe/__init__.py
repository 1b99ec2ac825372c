"""The front door: studies, the command line, plots and the report."""
