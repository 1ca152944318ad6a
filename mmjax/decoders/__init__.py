"""Decoders: how features become data again."""
