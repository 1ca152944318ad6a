"""Two processes on one machine evaluate as one does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

_PROGRAM = """
import json, pathlib, sys
import jax
import numpy as np

process, port, workdir = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
from evaluation import eval_cases as cases
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from mmjax.evaluation import EvalContext

# The devices of the two processes alternate, so rows of the global array are not in data order.
mesh = Mesh(np.array(jax.devices()).reshape(2, 2).T.reshape(-1), ("data",))
rows = NamedSharding(mesh, PartitionSpec("data"))
square = jax.jit(lambda batch: batch | {"square": batch["x"] ** 2}, out_shardings=rows)

def forward(batch):
    return square({k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()})

class Half(cases.Split):
    def batches(self):
        for batch in super().batches():
            half = self.batch_size // 2
            yield {k: v[process * half : (process + 1) * half] for k, v in batch.items()}

split = Half({"x": np.arange(11, dtype=np.float32)}, batch_size=8)
context = EvalContext(
    forward=forward, pipelines={"test": split}, sources={"test": split.source}, workdir=workdir
)
context.expect({"test": {"square", "x"}})
found = context.collect("test")
context.save("some", {"by": process})
(workdir / f"{process}.json").write_text(json.dumps({k: v.tolist() for k, v in found.items()}))
"""


@pytest.mark.slow
def test_every_process_gets_all_rows_in_data_order(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    tests = pathlib.Path(__file__).resolve().parent.parent
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
    }
    commands = [[sys.executable, "-c", _PROGRAM, str(p), port, str(tmp_path)] for p in range(2)]
    processes = [
        subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for c in commands
    ]
    try:
        output = [process.communicate(timeout=120)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(output)
    for p in range(2):
        found = json.loads((tmp_path / f"{p}.json").read_text())
        np.testing.assert_array_equal(found["x"], np.arange(11))
        np.testing.assert_array_equal(found["square"], np.arange(11) ** 2)
        np.testing.assert_array_equal(found["example_row"], np.arange(11))
    assert json.loads((tmp_path / "artifacts" / "some.json").read_text())["by"] == 0
