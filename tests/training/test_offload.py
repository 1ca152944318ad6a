"""The optimizer's state in the memory of the hosts: `optimizer.offload`."""

import types

import jax
import numpy as np
import pytest
import toy
from toy import assert_equal, host

from mmjax.errors import ConfigError
from mmjax.parallel import placement
from mmjax.training.checkpoints import Checkpoints

MESHES = {"one device": (), "data and fsdp": (("data", 2), ("fsdp", 2))}


def kinds(tree):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}


def steps(setup, count=3):
    state = setup.state
    for _ in range(count):
        state, _ = setup.step(state, toy.make_batch())
    return state


@pytest.mark.parametrize("mesh", MESHES)
def test_training_is_the_same_and_the_moments_stay_with_the_host(mesh):
    expected = steps(toy.set_up(MESHES[mesh], ema=0.9))
    setup = toy.set_up(MESHES[mesh], ema=0.9, offload=True)
    found = steps(setup)
    for moments in (expected.opt_state, found.opt_state):
        large = [leaf for leaf in jax.tree.leaves(moments) if leaf.size >= 64]
        assert kinds(large) == ({"pinned_host"} if moments is found.opt_state else {"device"})
    assert kinds(found.params) == kinds(found.ema) == {"device"}
    assert setup.step._cache_size() == 1
    assert_equal(host(found), host(expected))


def test_a_run_goes_on_with_or_without_it(tmp_path):
    away, here = toy.set_up(offload=True), toy.shared_set_up()
    state = steps(away)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, state, {})
    checkpoints.wait()
    for setup, kind in ((away, "pinned_host"), (here, "device")):
        _, restored, _ = checkpoints.restore_latest(setup.abstract)
        assert kind in kinds(restored.opt_state)
        assert_equal(host(restored), host(state))
        setup.step(restored, toy.make_batch())
    checkpoints.close()


def test_devices_without_such_memory_are_refused():
    memory = types.SimpleNamespace(kind="device")
    device = types.SimpleNamespace(device_kind="abacus", addressable_memories=lambda: [memory])
    mesh = types.SimpleNamespace(devices=np.array([device]))
    with pytest.raises(ConfigError, match=r"optimizer.offload: abacus has no memory .*it has: device"):
        placement.in_host_memory({}, {"x": types.SimpleNamespace(mesh=mesh)})
