"""Eight virtual CPU devices and a compilation cache, set before anything imports JAX."""

import os
import pathlib

# Tests compile much and compute little. These switches, and the one below, make compilation three to four
# times as fast, and what is compiled slower. What tests start, such as `./launch.sh train`, is compiled as
# users have it: it gets flags of its own.
_FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    "--xla_cpu_use_fusion_emitters": "false",
    "--xla_cpu_parallel_codegen_split_count": "1",
}
for _name, _value in _FLAGS.items():
    if _name not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_name}={_value}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parent.parent / ".jax_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)

from jaxtyping import install_import_hook  # noqa: E402

# Shapes and types in the signatures of these rooms are checked at every call of every test.
install_import_hook(
    [
        "mmjax.layers",
        "mmjax.encoders",
        "mmjax.fusion",
        "mmjax.heads",
        "mmjax.decoders",
        "mmjax.objectives",
        "mmjax.evaluation.metrics",
        "mmjax.evaluation.ranking",
    ],
    "typecheck.check_calls",
)
