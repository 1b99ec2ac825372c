"""One module per question asked of activations."""
