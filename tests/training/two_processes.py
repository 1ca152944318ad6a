"""One of two processes that save and restore together: PORT PROCESS DIRECTORY."""

import sys

import jax
from jax.experimental import multihost_utils
from saved_states import assert_same_bits, data_file, flip_a_bit, host_state, on_mesh

from mmjax.errors import DataError
from mmjax.training.checkpoints import Checkpoints, merge_params
from mmjax.training.state import replace_params


def main(port, process, directory):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    checkpoints = Checkpoints(directory, keep=1)

    def save(step):
        abstract, state = on_mesh(host_state(step), (("data", 2), ("fsdp", 2)))
        checkpoints.save(step, state, {"examples": step})
        return abstract

    for step in (1, 2):
        abstract = save(step)
    step, state, data_state = checkpoints.restore_latest(abstract)
    assert (step, data_state) == (2, {"examples": 2})
    kernel = state.params["encoder"]["mlp"]["up"]["kernel"]
    assert not kernel.is_fully_addressable and not kernel.is_fully_replicated
    whole = jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), state)
    assert_same_bits(whole, host_state(2))

    merged, _ = merge_params(state.params, host_state(4).params, include=["encoder/.*"])
    state = replace_params(state, merged)
    for params in (state.params, state.ema):
        whole = jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), params)
        assert_same_bits(whole["encoder"], host_state(4).params["encoder"])
        assert_same_bits(whole["head"], host_state(2).params["head"])

    save(3)
    checkpoints.wait()
    if jax.process_index() == 0:
        flip_a_bit(data_file(checkpoints.directory / "3"))
    multihost_utils.sync_global_devices("damaged")
    try:
        checkpoints.restore_latest(abstract)
    except DataError as error:
        assert "every checkpoint is damaged" in str(error)
    else:
        raise AssertionError("the damage was not found")
    checkpoints.close()
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
