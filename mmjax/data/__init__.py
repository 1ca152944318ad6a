"""Data: prepared data sets, tokenizers, transforms and the pipeline. Never imports JAX, except for
`batch_transforms`, because readers are worker processes.
"""
