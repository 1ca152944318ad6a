"""Layers that encoders, fusions and decoders share."""
