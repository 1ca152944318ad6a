"""mmjax: multimodal models in JAX and Flax, from one config."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Late, since the data workers import this package and have no use for JAX.
    if name == "load":
        from mmjax.inference.run import load

        return load
    raise AttributeError(f"module 'mmjax' has no attribute '{name}'")
