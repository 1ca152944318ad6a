"""Data: prepared data sets, tokenizers, transforms and the pipeline. Never imports JAX, except in
`batch_transforms` and `prefetch`, because readers are worker processes.
"""
