"""Recomputing activations in the backward pass instead of keeping them.

Chen et al. 2016, arXiv:1604.06174, section 3.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from mmjax.errors import ConfigError

# Names of results that cost a product (or a pass over all tokens), and are kept by 'elementwise'.
PROJECTED = "projected"
ATTENDED = "attended"
RESIDUAL = "residual"
STATISTICS = "norm_statistics"

# What is kept nevertheless, by the names that configs use.
POLICIES = {
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "elementwise": jax.checkpoint_policies.save_only_these_names(PROJECTED, ATTENDED, RESIDUAL, STATISTICS),
}


def rematerialised(
    module: type[nn.Module], remat: bool | str, *, static_argnums: tuple[int, ...], scanned: bool = False
) -> type[nn.Module]:
    """`module`, with its activations recomputed as `remat` says.

    Args:
      module: the class of a block or layer.
      remat: False keeps all; True keeps only what goes into the module; 'dots' also the results of matrix
        products and convolutions, 'dots_with_no_batch_dims' also those of products with parameters, but
        not the scores of attention; 'elementwise' what attention, its projections, the first layer of the
        MLP and the residual sums give, so that hardly more than normalisations, activations and scores are
        computed again.
      static_argnums: arguments of `__call__` that are no arrays (self is 0).
      scanned: whether it runs inside a scan, where the compiler cannot undo the recomputation.

    Raises:
      ConfigError: no such policy.
    """
    if not remat:
        return module
    if remat is not True and remat not in POLICIES:
        raise ConfigError(f"remat: got {remat!r}, expected one of: false, true, {', '.join(POLICIES)}")
    policy = None if remat is True else POLICIES[remat]
    return nn.remat(module, policy=policy, static_argnums=static_argnums, prevent_cse=not scanned)
