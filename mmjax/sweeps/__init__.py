"""Sweeps: many runs of one config, as one study that several processes work on."""

SETTINGS = "study.json"  # what makes a directory that of a sweep
