"""The search for settings that fit, with a compiler that is made up: memory as a formula."""

import pytest

from mmjax.errors import ConfigError
from mmjax.planning.plan import Job
from mmjax.planning.search import largest_batch, nearest
from mmjax.planning.topology import parse

AVAILABLE = 1000


class Compiler:
    """A chip needs `state / fsdp + each * rows of a microbatch (half of that with remat)`."""

    def __init__(self, state=100, each=10, batch=32):
        self.state, self.each, self.batch = state, each, batch
        self.tried = []

    def __call__(self, job):
        text = job.overrides
        mesh = {"data": int(text.get("mesh.data", 4)), "fsdp": int(text.get("mesh.fsdp", 1))}
        batch, steps = int(text.get("batch_size", self.batch)), int(text.get("optimizer.accumulate_steps", 1))
        if batch % (4 * steps):
            raise ConfigError("does not split")
        remat = text.get("remat") == "true"
        rows = batch / 4 / steps
        needed = self.state / mesh["fsdp"] + self.each * rows * (0.5 if remat else 1)
        self.tried.append(dict(text))
        return {
            "fits": needed <= AVAILABLE,
            "needed_bytes": needed,
            "mesh": mesh,
            "batch_size": batch,
            "batch_per_chip": batch / 4,
            "accumulate_steps": steps,
            "remat": remat,
        }


JOB = Job("nowhere.py", {}, parse("v5e:2x2"))


@pytest.mark.parametrize(
    ("each", "batch", "expected", "compilations"),
    [
        (10, 32, 320, 7),  # 90 rows fit: 8, 16, 32, 64 do, 128 does not, then 96 does not and 80 does
        (10, 1024, 320, 5),  # 256, 128, 64; 96, 80
        (900, 4, 4, 2),  # one row fits, two do not
        (300, 4, 12, 4),  # 1, 2; 4 does not; 3 does
    ],
)
def test_the_largest_batch(each, batch, expected, compilations):
    compiler = Compiler(each=each, batch=batch)
    found = largest_batch(JOB, compiler(JOB), compiler)
    assert found["batch_size"] == expected and found["batch_per_chip"] == expected / 4
    assert found["compilations"] == compilations == len(compiler.tried)
    assert found["needed_bytes"] == 100 + each * expected / 4


def test_no_batch_is_small_enough():
    compiler = Compiler(state=2000)
    assert largest_batch(JOB, compiler(JOB), compiler) is None


def tried(**fields):
    compiler = Compiler(**fields)
    plan = compiler(JOB)
    assert not plan["fits"]
    return nearest(JOB, plan, compiler)


def test_remat_is_near():
    remat, batch = tried(each=120)
    assert remat == {"changes": {"remat": "true"}, "needed_bytes": 580}
    assert batch == {"changes": {"batch_size": "16"}, "needed_bytes": 580}


def test_splitting_the_state_is_near():
    split, batch = tried(state=980, each=10)
    assert split["changes"] == {"mesh.data": "1", "mesh.fsdp": "4"}
    assert batch["changes"] == {"batch_size": "8"}


def test_microbatches_come_with_all_the_rest():
    pieces, batch = tried(state=400, each=300)
    assert pieces["changes"] == {
        "remat": "true", "mesh.data": "1", "mesh.fsdp": "4", "optimizer.accumulate_steps": "2",
    }  # fmt: skip
    assert batch["changes"] == {"batch_size": "8"}


def test_nothing_is_near():
    assert tried(state=9000) == []
