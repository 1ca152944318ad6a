import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluation import eval_cases as cases
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.errors import ConfigError, DataError, NonFiniteError
from mmjax.evaluation import EvalContext, names_to_collect, run_evaluators


def columns(rows=11):
    rng = np.random.default_rng(0)
    return {
        "example_id": (100 + np.arange(rows)[::-1]).astype(np.int32),
        "image": rng.normal(size=(rows, 3)).astype(np.float32),
        "image_present": np.arange(rows) % 3 != 0,
        "text_mask": np.ones((rows, 2), bool),
        "text": np.ones((rows, 2), np.int32),
        "digit": (np.arange(rows) % 2).astype(np.int32),
    }


def test_rows_come_in_data_order_without_padding(tmp_path):
    table = columns()
    split = cases.Split(table, batch_size=4)
    context = cases.make_context(tmp_path, {"test": split}, {"double": np.arange(200.0)})
    context.expect({"test": {"image", "double", "text"}})
    found = context.collect("test")
    np.testing.assert_array_equal(found["example_id"], table["example_id"])
    np.testing.assert_array_equal(found["example_row"], np.arange(11))
    np.testing.assert_array_equal(found["image"], table["image"])
    np.testing.assert_array_equal(found["double"], table["example_id"])
    # The companions of what was asked for come along, nothing else does.
    assert set(found) == {
        "example_id", "example_row", "image", "image_present", "double", "text", "text_mask"
    }  # fmt: skip
    kept = context.collect("test", ["image"])
    np.testing.assert_array_equal(kept["example_row"], np.flatnonzero(table["image_present"]))


def test_no_example_with_all_streams_is_told(tmp_path):
    table = columns() | {"image_present": np.zeros(11, bool)}
    context = cases.make_context(tmp_path, {"test": cases.Split(table)})
    context.expect({"test": {"image_present"}})
    with pytest.raises(ConfigError, match="no example of 'test' has all of the streams: image"):
        context.collect("test", ["image"])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [8, 16])
def test_any_number_of_devices_and_any_batch_gives_the_same(tmp_path, devices, batch_size):
    table = columns(rows=19)
    # The mesh's devices stand in another order than the batch's rows.
    mesh = Mesh(np.array(jax.devices()[:devices][::-1]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    double = jax.jit(lambda batch: batch | {"double": 2 * batch["image"]})
    split = cases.Split(table, batch_size=batch_size)
    context = EvalContext(
        forward=lambda batch: double(jax.device_put(batch, rows)),
        pipelines={"test": split},
        sources={"test": split.source},
        workdir=tmp_path,
    )
    context.expect({"test": {"double", "digit"}})
    found = context.collect("test")
    np.testing.assert_array_equal(found["double"], 2 * table["image"])
    np.testing.assert_array_equal(found["digit"], table["digit"])


def test_rows_out_of_order_are_put_back(tmp_path):
    table = columns()

    def forward(batch):
        order = np.random.default_rng(0).permutation(len(batch["image"]))
        return {name: jnp.asarray(values[order]) for name, values in batch.items()}

    split = cases.Split(table)
    context = EvalContext(
        forward=forward, pipelines={"test": split}, sources={"test": split.source}, workdir=tmp_path
    )
    context.expect({"test": {"image"}})
    np.testing.assert_array_equal(context.collect("test")["image"], table["image"])


def test_bfloat16_outputs_become_float32(tmp_path):
    values = jnp.arange(200, dtype=jnp.bfloat16)
    context = cases.make_context(tmp_path, {"test": cases.Split(columns())}, {"half": values})
    context.expect({"test": {"half"}})
    assert context.collect("test")["half"].dtype == np.float32


def test_one_pass_over_a_data_set_serves_all_evaluators(tmp_path):
    split = cases.Split(columns())
    logits = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    context = cases.make_context(tmp_path, {"test": split}, {"logits": logits, "features": logits[:, ::-1]})
    evaluators = {
        "classes": cases.build(type="classification", data="test", head="logits", label="digit"),
        "clusters": cases.build(type="clustering", data="test", features="features", label="digit"),
    }
    results = run_evaluators(evaluators, context)
    assert split.passes == 1
    assert {"classification/logits/accuracy", "clustering/digit/nmi"} <= set(results)


def test_what_is_not_finite_is_told_with_its_example(tmp_path):
    values = np.zeros((200, 2), np.float32)
    values[105, 1] = np.nan
    context = cases.make_context(tmp_path, {"test": cases.Split(columns())}, {"logits": values})
    with pytest.raises(NonFiniteError, match="'logits' is not finite for 1 of 11 .*example_id 105"):
        cases.run(context, type="classification", data="test", head="logits", label="digit")


def test_missing_things_are_told_with_the_nearest_name(tmp_path):
    context = cases.make_context(tmp_path, {"test": cases.Split(columns())}, {"logits": np.zeros((200, 2))})
    section = {"type": "classification", "data": "test", "head": "logits", "label": "digit"}
    with pytest.raises(ConfigError, match="'logit' is neither .*did you mean 'logits'"):
        cases.run(context, **section | {"head": "logit"})
    with pytest.raises(ConfigError, match="'digits' is neither .*did you mean 'digit'"):
        cases.run(
            cases.make_context(tmp_path, {"test": cases.Split(columns())}),
            **section | {"label": "digits", "head": "image"},
        )
    with pytest.raises(ConfigError, match="no data set 'tests'.*did you mean 'test'"):
        cases.run(context, **section | {"data": "tests"})


def test_names_to_collect_checks_before_anything_runs():
    evaluators = {
        "main": cases.build(
            type="retrieval", data="test", a="a", b="b", a_name="image", b_name="text", streams=["image"]
        )
    }
    entries = ["image", "image_present", "image_mask", "text"]
    known = {"data": {"test": entries, "other": ["text"]}, "outputs": ["a", "b"]}
    assert set(names_to_collect(evaluators, **known)) == {
        "a", "b", "image_present", "example_id", "example_mask", "example_row"
    }  # fmt: skip
    with pytest.raises(ConfigError, match="evals.main: 'b' is neither"):
        names_to_collect(evaluators, **known | {"outputs": ["a"]})
    with pytest.raises(ConfigError, match="evals.main: 'image_present' is neither"):
        names_to_collect(evaluators, **known | {"data": {"test": ["text"], "other": entries}})
    with pytest.raises(ConfigError, match="evals.main: there is no data set 'test'.*did you mean 'tests'"):
        names_to_collect(evaluators, **known | {"data": {"tests": entries}})
    # A stream that is evaluated on brings its mask along.
    rebuilt = {"it": cases.build(type="reconstruction", data="test", output="a", target="image")}
    assert "image_mask" in names_to_collect(rebuilt, **known)


def test_two_evaluators_of_one_name_are_refused_unless_prefixed(tmp_path):
    section = {"type": "classification", "data": "test", "head": "logits", "label": "digit"}
    splits = {"test": cases.Split(columns()), "noisy": cases.Split(columns())}
    context = cases.make_context(
        tmp_path, splits, {"logits": np.eye(2, dtype=np.float32)[np.arange(200) % 2]}
    )
    twice = {"one": cases.build(**section), "two": cases.build(**section | {"data": "noisy"})}
    with pytest.raises(ConfigError, match="evals.two and evals.one both give 'classification/logits"):
        run_evaluators(twice, context)
    twice["two"] = cases.build(**section | {"data": "noisy", "prefix": "noisy"})
    results = run_evaluators(twice, context)
    assert results["noisy/classification/logits/accuracy"] == results["classification/logits/accuracy"]
    assert cases.artifact(tmp_path, "noisy_classification_logits_calibration")["data"] == "noisy"


def test_undefined_numbers_are_left_out(tmp_path):
    table = columns() | {"digit": np.zeros(11, np.int32)}
    context = cases.make_context(tmp_path, {"test": cases.Split(table)}, {"logits": np.zeros((200, 2))})
    results = cases.run(context, type="classification", data="test", head="logits", label="digit")
    assert "classification/logits/auroc" not in results
    assert results["classification/logits/accuracy"] == 1.0


def test_artifacts_are_json_with_the_step(tmp_path):
    context = cases.make_context(tmp_path, {}, step=30)
    context.save("degraded/some", {"kind": "x", "values": np.array([1.0, np.nan]), "n": np.int64(3)})
    assert cases.artifact(tmp_path, "degraded_some") == {
        "step": 30, "kind": "x", "values": [1.0, None], "n": 3
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["degraded_some.json"]


def test_texts_of_records(tmp_path):
    records = [{"names": {"en": "cat"}}, {"names": {"en": ["a dog", "hound"]}}, {"names": {"en": None}}]
    split = cases.Split({"x": np.zeros(3)}, records)
    context = cases.make_context(tmp_path, {"test": split})
    assert context.texts("test", [1, 2, 0], "names.en") == ["a dog / hound", "", "cat"]
    with pytest.raises(DataError, match="no feature 'names.e'.*did you mean 'names.en'"):
        context.texts("test", [0], "names.e")
    with pytest.raises(DataError, match="holds int, expected text"):
        context.texts("test", [0], "example_id")


def test_texts_are_encoded_once(tmp_path):
    calls = []

    def encode(stream, texts, output):
        calls.append(texts)
        return np.ones((len(texts), 2))

    context = cases.make_context(tmp_path, {}, encode=encode)
    assert context.encode_texts("text", ["a", "b"], "embedding").dtype == np.float32
    context.encode_texts("text", ["a", "b"], "embedding")
    assert calls == [["a", "b"]]
    with pytest.raises(ConfigError, match="encodes no text"):
        cases.make_context(tmp_path, {}).encode_texts("text", ["a"], "embedding")


def test_class_names(tmp_path):
    context = cases.make_context(tmp_path, {}, class_names={"digit": ["zero", "one"]})
    assert context.class_names("digit") == context.class_names("digit", 2) == ["zero", "one"]
    assert context.class_names("digit", 3) == ["0", "1", "2"]
    assert context.class_names("other") == []


def test_an_empty_data_set_is_told(tmp_path):
    context = cases.make_context(tmp_path, {"test": cases.Split({"x": np.zeros(0)})})
    context.expect({"test": {"x"}})
    with pytest.raises(DataError, match="'test' has no examples"):
        context.collect("test")
