"""Every file in configs/: it resolves, and a shrunken copy of it makes a step on its own data."""

import pathlib

import numpy as np
import outside
import pytest
import tiny

from mmjax import components, schema
from mmjax import config as config_lib
from mmjax.data import loading
from mmjax.data.prefetch import prefetch
from mmjax.errors import DataError
from mmjax.parallel.mesh import batch_sharding
from mmjax.training.evaluate import Evaluation
from mmjax.training.loop import initial_state
from mmjax.training.setup import fill_sizes, load_data, set_up
from mmjax.training.step import pop_non_finite

FILES = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))
# Arguments that make another config of a file.
ARGUMENTS = {
    "av_digits.py": ["fusion=late_weighted", "fusion=bottleneck,encoders=transformer", "fusion=image"],
    "emoji_fusions.py": ["fusion=late", "fusion=q_former", "fusion=text"],
    "mnist1d.py": ["model=logistic,shuffled", "model=mlp", "model=gru"],
    "mnist1d_contrastive.py": ["projector=false", "negatives=other"],
    "sort_of_clevr.py": ["model=mlp,input=states", "model=attention", "size=full"],
    "trifeature.py": ["method=cross,biased", "method=cross_self", "size=full"],
    "cnn_lstm_concat.py": ["fusion=gated", "fusion=late"],
}
REFERENCES = [str(file) for file in FILES] + [
    f"{file}:{argument}" for file in FILES for argument in ARGUMENTS.get(file.name, [])
]
SIZE, WIDTH, HEADS, DEPTH = 16, 16, 2, 2


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Every config's data is prepared once."""
    return tmp_path_factory.mktemp("data")


def name(reference):
    return pathlib.Path(reference).name


@pytest.mark.parametrize("reference", REFERENCES, ids=name)
def test_it_resolves_and_gives_itself_again(reference, tmp_path):
    config = config_lib.resolve(reference)
    again = tmp_path / "config.json"
    again.write_text(config_lib.to_json(config))
    assert config_lib.resolve(str(again)) == config


# What trains; zero_shot.py judges weights of the hub and makes no step, see test_accelerator_tables.py.
TRAINING = [file for file in FILES if config_lib.resolve(str(file)).total_steps != 0]


@pytest.mark.slow
@pytest.mark.parametrize("file", TRAINING, ids=name)
def test_it_makes_a_step(file, data_dir, tmp_path):
    plain = config_lib.to_dict(config_lib.resolve(str(file)))
    shrink(plain)
    plain |= {"batch_size": 4, "total_steps": 2, "total_epochs": None, "total_examples": None}
    plain["data"]["dir"] = str(data_dir)
    config = config_lib.check(components.normalise(plain, schema.Config, ""))
    try:
        loading.prepare(config.data)
    except DataError as error:
        if "cannot download" in str(error):
            outside.missing(str(error))
        raise
    with tiny.on_devices(1):
        data = load_data(config, None)
        setup = set_up(fill_sizes(config, data), data)
        Evaluation(setup, tmp_path)  # raises where an evaluator reads what is not there
        with prefetch(setup.pipeline.batches(0), batch_sharding(setup.mesh)) as batches:
            state, metrics = setup.make_train_step()(initial_state(setup), next(batches))
    assert pop_non_finite(metrics) == []
    assert np.isfinite(float(metrics["loss"][0])) and int(state.step) == 1


def shrink(node):
    """Makes images, widths and depths of a config small, wherever they stand in it."""
    if isinstance(node, list):
        for item in node:
            shrink(item)
    if not isinstance(node, dict):
        return
    for item in node.values():
        shrink(item)
    kind = node.get("type")
    small = {"width": WIDTH, "depth": DEPTH, "mlp_width": 2 * WIDTH, "image_size": SIZE}
    if kind in ("image_decoder", "resize", "random_resized_crop", "crop"):
        small = {"width": SIZE, "height": SIZE, "size": SIZE}
    if isinstance(node.get("heads"), int):
        small["heads"] = HEADS
    if "variant" in node:
        small["variant"] = "custom"
    if node.get("init") and "encoder" in node:
        node["init"] = ""  # published weights fit the encoder as it is, not a smaller one
    if kind == "bottleneck":
        node["fusion_layer"] = 0
    node.update({key: value for key, value in small.items() if node.get(key)})
    for key in ("widths", "filters", "hidden"):
        if node.get(key):
            node[key] = [WIDTH] * len(node[key])
