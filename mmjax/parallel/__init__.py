"""Devices as a mesh, and where arrays live on it."""
