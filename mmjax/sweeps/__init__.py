"""Sweeps: many runs of one config, as one study that several processes work on."""
