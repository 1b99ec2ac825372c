"""The model pair with a known answer that ships with layerprobe."""
