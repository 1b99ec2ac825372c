"""What the project needs and its users do not: run from the repository's root with `python -m tools...`."""
