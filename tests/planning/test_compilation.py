"""What becomes of a compiler's refusal, and the figures of chips."""

import types

import jax
import pytest

from mmjax.parallel.chips import CHIPS, GIB
from mmjax.planning.compilation import compile_step


def failing(message):
    """A setup whose step the compiler refuses."""

    def compile_train_step():
        raise jax.errors.JaxRuntimeError(message)

    return types.SimpleNamespace(compile_train_step=compile_train_step)


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
            "(20.00G) exceeds available HBM (15.75G).",
            20 * GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
            "Used 512.5M of 15.75G hbm. Exceeded hbm capacity\n\nTotal hbm usage",
            int(512.5 * 2**20),
        ),
        ("RESOURCE_EXHAUSTED: too much", None),
    ],
)
def test_memory_that_does_not_suffice_is_an_answer(message, needed):
    found = compile_step(failing(message))
    assert not found.fits and found.needed_bytes == needed
    assert found.reason == message.splitlines()[0]


def test_any_other_failure_is_one():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_step(failing("INTERNAL: a bug"))


def test_figures_of_chips():
    # Jouppi et al. 2023, arXiv:2304.01433: 1050 MHz
    assert CHIPS["v4"].clock_hz == pytest.approx(1.05e9, rel=1e-2)
    for name, chip in CHIPS.items():
        assert name == chip.name and chip.source
        assert chip.link_bandwidth < chip.memory_bandwidth < chip.peak_flops / 100
