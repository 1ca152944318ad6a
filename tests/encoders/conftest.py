import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation():
    """Without XLA's costly passes: these tests compile much and compute little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
