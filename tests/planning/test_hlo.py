"""What is read from compiled programs, on programs that are compiled here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.planning import costs, hlo
from mmjax.planning.collectives import collectives, replica_groups


@pytest.fixture(scope="module")
def mesh():
    devices = np.array(jax.devices()[:8]).reshape(2, 4)
    return Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


WHOLE = PartitionSpec()


def program(function, mesh, *arguments, out=WHOLE):
    """The program of a function; arguments are (shape, dtype, spec)."""
    shapes = [jax.ShapeDtypeStruct(s, d, sharding=NamedSharding(mesh, p)) for s, d, p in arguments]
    compiled = jax.jit(function, out_shardings=NamedSharding(mesh, out)).lower(*shapes).compile()
    return hlo.parse(compiled.as_text())


def exchanged(program, mesh):
    return {(c.kind, c.axes): c for c in collectives(program, mesh.shape)}


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_a_sum_over_one_axis(mesh, axis):
    made = program(lambda x: x.sum(0), mesh, ((8, 1000), jnp.float32, PartitionSpec(axis)))
    (found,) = collectives(made, mesh.shape)
    count = mesh.shape[axis]
    assert (found.kind, found.axes, found.count) == ("all-reduce", axis, 1)
    assert found.payload_bytes == 4000
    assert found.sent_bytes == pytest.approx(2 * (count - 1) / count * 4000)


def test_a_sum_over_the_whole_mesh(mesh):
    made = program(lambda x: x.sum(0), mesh, ((8, 10), jnp.float32, PartitionSpec(("data", "fsdp"))))
    (found,) = collectives(made, mesh.shape)
    assert (found.kind, found.axes, found.payload_bytes) == ("all-reduce", "data+fsdp", 40)


def test_an_array_that_is_gathered(mesh):
    made = program(lambda x: x + 1, mesh, ((64, 32), jnp.float32, PartitionSpec(None, "fsdp")))
    found = exchanged(made, mesh)["all-gather", "fsdp"]
    part = 64 * 8 * 4
    assert found.payload_bytes == part and found.sent_bytes == 3 * part


def test_exchanges_that_are_written_by_hand(mesh):
    def run(x):
        moved = jax.lax.ppermute(x, "data", [(0, 1), (1, 0)])
        swapped = jax.lax.all_to_all(x, "fsdp", 1, 0, tiled=True)
        kept = jax.lax.psum_scatter(x, "fsdp", scatter_dimension=0, tiled=True)
        return moved, swapped, kept

    spec = PartitionSpec("data", "fsdp")
    shape = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=NamedSharding(mesh, spec))
    mapped = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=(spec, spec, spec), check_vma=False)
    made = hlo.parse(jax.jit(mapped).lower(shape).compile().as_text())
    found = exchanged(made, mesh)
    part = 16 * 16 * 4
    sent = {key: collective.sent_bytes for key, collective in found.items()}
    assert sent == {
        ("collective-permute", "data"): part,
        ("all-to-all", "fsdp"): part * 3 / 4,
        ("reduce-scatter", "fsdp"): part * 3 / 4,
    }


def test_a_program_of_one_device_exchanges_nothing():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    made = program(lambda x: x.sum(0), mesh, ((8, 10), jnp.float32, PartitionSpec("data")))
    assert collectives(made, mesh.shape) == []


def scanned(weights, x):
    return jax.lax.scan(lambda y, w: (jnp.tanh(y @ w), None), x, weights)[0]


def test_a_scan_multiplies(mesh):
    """Each round multiplies by a part of a weight and gathers the columns of the result."""

    def of(length):
        return program(
            scanned,
            mesh,
            ((length, 64, 64), jnp.float32, PartitionSpec(None, None, "fsdp")),
            ((8, 64), jnp.float32, PartitionSpec("data")),
            out=PartitionSpec("data"),
        )

    short, long = of(3), of(7)
    assert short.unknown_loops == long.unknown_loops == []
    each = 2 * 4 * 64 * 16  # a device has half of the rows and a quarter of the columns
    assert costs.product_flops(short) == (3 * each, each)
    assert costs.product_flops(long) == (7 * each, each)
    counted = [exchanged(made, mesh)["all-gather", "fsdp"] for made in (short, long)]
    assert counted[1].count - counted[0].count == 4
    column = 4 * 16 * 4  # bytes: rows, columns of a device
    assert counted[1].sent_bytes - counted[0].sent_bytes == 4 * 3 * column


def test_scans_within_scans_multiply(mesh):
    def run(weights, x):
        return jax.lax.scan(lambda y, _: (scanned(weights, y), None), x, None, length=3)[0]

    made = program(
        run,
        mesh,
        ((5, 16, 16), jnp.float32, PartitionSpec()),
        ((8, 16), jnp.float32, PartitionSpec("data")),
        out=PartitionSpec("data"),
    )
    assert costs.product_flops(made)[0] == 3 * 5 * 2 * 4 * 16 * 16
    assert sorted(made.executed.values())[-1] == 15


def test_a_loop_of_unknown_length_is_told(mesh):
    def run(x):
        return jax.lax.while_loop(lambda y: y.sum() < 100, lambda y: y @ y, x)

    made = program(run, mesh, ((16, 16), jnp.float32, PartitionSpec()))
    assert len(made.unknown_loops) == 1
    assert costs.product_flops(made)[0] == 2 * 16**3  # one round


def test_products_are_counted_as_the_compiler_does(mesh):
    """Batched products, and convolutions with strides, padding and groups; no loops."""

    def run(x, y, image, kernel):
        strided = jax.lax.conv_general_dilated(
            image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )
        return jnp.einsum("bij,bjk->bik", x, y), strided

    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    shapes = [(4, 8, 16), (4, 16, 32), (2, 9, 9, 4), (3, 3, 2, 6)]
    whole = NamedSharding(one, PartitionSpec())
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=whole) for shape in shapes]
    compiled = jax.jit(run).lower(*inputs).compile()
    total, once = costs.product_flops(hlo.parse(compiled.as_text()))
    # 5 outputs of a line meet 2 + 3 + 3 + 3 + 2 places of the kernel
    assert total == once == 2 * 4 * 8 * 16 * 32 + 2 * 2 * 6 * 2 * 13 * 13
    assert compiled.cost_analysis()["flops"] == pytest.approx(total, rel=0.05)


def test_memory_traffic_of_a_slice_is_the_slice(mesh):
    def run(x, start):
        return jax.lax.dynamic_slice(x, (start, 0), (2, 1000)) * 2

    made = program(run, mesh, ((1000, 1000), jnp.float32, PartitionSpec()), ((), jnp.int32, PartitionSpec()))
    assert costs.memory_traffic(made) == pytest.approx(2 * 2 * 1000 * 4, abs=100)
    whole = program(lambda x: x * 2, mesh, ((1000, 1000), jnp.float32, PartitionSpec()))
    assert costs.memory_traffic(whole) == 2 * 1000 * 1000 * 4


SPREAD = """HloModule spread

%NAME (x: f32[8,100], y: f32[32,100], z: f32[50,100]) -> (f32[50,100], f32[8,100], f32[32,100]) {
  %z = f32[50,100]{1,0} parameter(2)
  %doubled = f32[50,100]{1,0} add(%z, %z)
  %x = f32[8,100]{1,0} parameter(0)
  %y = f32[32,100]{1,0} parameter(1)
  %gathered = f32[32,100]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %all = (f32[50,100]{1,0}, f32[8,100]{1,0}, f32[32,100]{1,0}) tuple(%doubled, %x, %gathered)
}

ENTRY %main (a: f32[8,100], b: f32[32,100], c: f32[50,100]) -> (f32[50,100], f32[8,100], f32[32,100]) {
  %a = f32[8,100]{1,0} parameter(0)
  %b = f32[32,100]{1,0} parameter(1)
  %c = f32[50,100]{1,0} parameter(2)
  ROOT %fused = (f32[50,100]{1,0}, f32[8,100]{1,0}, f32[32,100]{1,0}) fusion(%a, %b, %c), kind=kLoop, \
output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, calls=%NAME
}
""".replace("\\\n", "")


@pytest.mark.parametrize(("name", "rows"), [("async_collective_fusion.1", 100), ("fused_computation.1", 148)])
def test_memory_traffic_of_an_exchange_that_goes_on_does_not_count(name, rows):
    # Usually what is read and written counts: 50 + 8 rows in, 50 + 8 + 32 out.
    assert costs.memory_traffic(hlo.parse(SPREAD.replace("NAME", name))) == rows * 100 * 4


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x=1", [[0, 1], [2, 3]]),
        ("replica_groups=[2,4]<=[8], x=1", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x=1", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x=1", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x=1", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}, x=1", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, x=1", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        (
            "replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}, x",
            [[0, 1, 2, 3], [4, 5, 6, 7]],
        ),
        ("replica_groups={}, x=1", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("channel_id=1", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_every_way_to_write_groups(text, groups):
    assert replica_groups(text, 8).tolist() == groups


def test_unknown_ways_to_write_groups_are_refused():
    with pytest.raises(ValueError, match="replica_groups written as"):
        replica_groups("replica_groups=[[0,1]]", 2)


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("nothing")


DCN = '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"'
BETWEEN_SLICES = f"""HloModule step

ENTRY %main (p: bf16[1024,8,128]) -> bf16[1024,8,128] {{
  %p = bf16[1024,8,128]{{2,1,0}} parameter(0)
  %after-all = token[] after-all()
  %send = (bf16[1024,8,128]{{2,1,0}}, u32[], token[]) send(%p, %after-all), frontend_attributes={{{DCN}}}
  %send-done = token[] send-done(%send), channel_id=2, is_host_transfer=true
  ROOT %r = bf16[1024,8,128]{{2,1,0}} all-reduce(%p), replica_groups={{{{0,1,2,3}}}}, to_apply=%add
}}
"""


def test_what_slices_send_each_other_is_told_apart():
    between, within = sorted(
        collectives(hlo.parse(BETWEEN_SLICES), {"data": 2, "fsdp": 2}, slices=3), key=lambda c: c.sent_bytes
    )
    payload = 1024 * 8 * 128 * 2
    assert (within.kind, within.axes, within.payload_bytes) == ("all-reduce", "data+fsdp", payload)
    assert (between.kind, between.axes, between.payload_bytes) == ("all-reduce", "slices", payload)
    assert between.sent_bytes == pytest.approx(2 * 2 / 3 * payload)
