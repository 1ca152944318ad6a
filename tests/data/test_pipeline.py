"""Batches: order, processes, workers, resuming, padding."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_cases import NORMALISE, assert_same, frames_stream, record, section, source, take

from mmjax.data.order import training_order
from mmjax.data.pipeline import EvalPipeline, TrainPipeline, _Rows, eval_streams
from mmjax.data.source import ListSource, MixtureSource
from mmjax.errors import ConfigError, DataError


def train(data=None, records=None, batch_size=4, seed=1, **process):
    return TrainPipeline(
        source(13) if records is None else records,
        data or section(),
        batch_size=batch_size,
        seed=seed,
        tokenizers={},
        **process,
    )


def evaluate(data=None, records=None, batch_size=4, **options):
    return EvalPipeline(
        source(13) if records is None else records,
        data or section(),
        batch_size=batch_size,
        tokenizers={},
        **options,
    )


def test_batches_have_the_shapes_of_the_spec():
    pipeline = train()
    (batch,) = take(pipeline.batches(), 1)
    spec = pipeline.spec()
    assert {name: (array.shape[1:], array.dtype.name) for name, array in batch.items()} == spec
    assert all(len(array) == 4 for array in batch.values())
    assert batch["example_mask"].all()


def test_rows_are_the_examples_of_the_order():
    records = source(13)
    batches = take(train(records=records).batches(), 7)
    ids = np.concatenate([batch["example_id"] for batch in batches])
    order = training_order(records, seed=1)
    np.testing.assert_array_equal(ids, [order(number) for number in range(28)])
    assert sorted(ids[:13]) == sorted(ids[13:26]) == list(range(13))  # epochs run across batches
    np.testing.assert_array_equal(batches[0]["label"], batches[0]["example_id"] % 5)


def test_starting_at_any_step_is_skipping_to_it():
    pipeline = train()
    everything = take(pipeline.batches(), 9)
    for start in (1, 3, 7):
        assert_same(take(pipeline.batches(start), 2), everything[start : start + 2])


def test_an_example_is_augmented_anew_in_each_epoch():
    batches = take(train(batch_size=13).batches(), 2)
    first, second = (dict(zip(b["example_id"].tolist(), b["image"], strict=True)) for b in batches)
    assert all(not np.array_equal(first[i], second[i]) for i in first)


def test_seeds_give_other_orders():
    a, b, c = (take(train(seed=seed).batches(), 1)[0] for seed in (1, 1, 2))
    assert_same([a], [b])
    assert not np.array_equal(a["example_id"], c["example_id"])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_read_their_rows_of_the_same_batches(processes):
    whole = take(train().batches(2), 3)
    parts = [take(train(process_index=p, process_count=processes).batches(2), 3) for p in range(processes)]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in whole[0]} for step in range(3)
    ]
    assert_same(joined, whole)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 40))
def test_rows_of_all_processes_are_every_number_once(processes, per_process, steps):
    batch_size = processes * per_process
    rows = [_Rows(batch_size, p, processes) for p in range(processes)]
    numbers = [
        row.number(step * per_process + i)
        for step in range(steps)
        for row in rows
        for i in range(per_process)
    ]
    assert numbers == list(range(steps * batch_size))


@pytest.mark.slow
def test_worker_processes_change_nothing():
    streams = section()["streams"] | section({"frames": frames_stream(drop_rate=0.5)})["streams"]
    alone, workers = (section(num_workers=n) | {"streams": streams} for n in (0, 2))
    two = {"process_index": 1, "process_count": 2}
    for start, process in ((3, {}), (1, two)):
        expected = take(train(alone, **process).batches(start), 5)
        assert_same(take(train(workers, **process).batches(start), 5), expected)
    assert_same(list(evaluate(workers).batches()), list(evaluate(alone).batches()))


@pytest.mark.slow
def test_worker_processes_outlive_the_signals_that_ask_the_run_to_stop():
    batches = train(section(num_workers=1)).batches()
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    # One batch was ready before the signals, and one in the making.
    assert_same([first, *take(batches, 8)], take(train().batches(), 9))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_errors_in_worker_processes_come_out_as_they_are():
    records = ListSource([record(i, image=b"abc" if i == 5 else record(i)["image"]) for i in range(8)])
    batches = evaluate(section(num_workers=2), records, batch_size=2).batches()
    with pytest.raises(DataError, match="^list, example 5: stream 'image': decode_image: 3 bytes"):
        list(batches)
    batches.close()


def test_errors_name_data_set_and_example():
    records = ListSource([record(i, example_id=100 + i) for i in range(5)], name="mine/train")
    records._records[3]["image"] = b"abc"
    with pytest.raises(DataError, match="^mine/train, example 103: stream 'image': decode_image: 3 bytes"):
        take(train(records=records, batch_size=5).batches(), 1)


def test_a_mixture_is_drawn_by_its_weights():
    parts = [source(4, "a"), source(6, "b", image=None)]
    mixture = MixtureSource(parts, [1.0, 3.0])
    pipeline = train(records=mixture, batch_size=8)
    assert pipeline.examples_per_epoch == 10
    for batch in take(pipeline.batches(), 3):
        assert (batch["example_id"] < 4).sum() == 2
        np.testing.assert_array_equal(batch["image_present"], batch["example_id"] < 4)


def test_evaluation_reads_every_record_once_in_order_and_pads_the_last_batch():
    pipeline = evaluate()
    batches = list(pipeline.batches())
    assert len(batches) == pipeline.num_batches == 4
    ids, mask = (np.concatenate([b[name] for b in batches]) for name in ("example_id", "example_mask"))
    np.testing.assert_array_equal(ids, [*range(13), -1, -1, -1])
    np.testing.assert_array_equal(mask, [True] * 13 + [False] * 3)
    last = batches[-1]
    assert not last["image_present"][1:].any() and not last["frames_mask"][1:].any()
    np.testing.assert_array_equal(last["label"], [2, -1, -1, -1])
    assert_same(list(pipeline.batches()), batches)


def test_processes_have_as_many_evaluation_batches():
    whole = list(evaluate(records=source(9)).batches())
    parts = [list(evaluate(records=source(9), process_index=p, process_count=4).batches()) for p in range(4)]
    assert [len(part) for part in parts] == [3] * 4
    joined = [{n: np.concatenate([part[i][n] for part in parts]) for n in whole[0]} for i in range(3)]
    assert_same(joined, whole)


def test_evaluation_sets_replace_transforms_and_hide_streams():
    decode = [{"type": "decode_image"}, {"type": "center_crop", "size": 6}]
    black = [*decode, {"type": "occlude", "fraction": 1.0}, NORMALISE]
    noisy = [*decode, {"type": "gaussian_noise", "std": 0.5}, NORMALISE]
    data = section(
        evals={
            "plain": {},
            "black": {"streams": {"image": black}, "drop": ["frames"]},
            "noisy": {"streams": {"image": noisy}},
        }
    )
    plain, black, noisy = (take(evaluate(data, name=n).batches(), 2) for n in ("plain", "black", "noisy"))
    assert_same(take(evaluate(data).batches(), 2), plain)
    assert_same(take(evaluate(data, name="train").batches(), 2), plain)
    assert not black[1]["image"].any() and black[1]["image_present"].all()
    assert not black[1]["frames_present"].any() and plain[1]["frames_present"].all()
    assert not np.array_equal(noisy[1]["image"], plain[1]["image"])
    assert_same(take(evaluate(data, name="noisy").batches(), 2), noisy)
    other = take(evaluate(data, name="noisy", seed=1).batches(), 2)
    assert not np.array_equal(other[1]["image"], noisy[1]["image"])


def test_an_evaluation_set_may_have_labels_of_its_own():
    data = section(evals={"plain": {}, "other": {"labels": {"genus": "kind", "label": "kind"}}})
    records = ListSource([{**record, "kind": 7 + i} for i, record in enumerate(source(4))])
    plain, other = (take(evaluate(data, records, name=n).batches(), 1)[0] for n in ("plain", "other"))
    assert "genus" not in plain and plain["label"].tolist() == [0, 1, 2, 3]
    assert other["genus"].tolist() == other["label"].tolist() == [7, 8, 9, 10]
    assert "genus" not in train(data, records).spec()


def test_a_wrong_feature_of_an_own_label_is_told():
    data = section(evals={"other": {"labels": {"genus": "lable"}}})
    with pytest.raises(DataError, match=r"eval.other.labels.genus: .* no feature 'lable' \(did you mean"):
        evaluate(data, name="other")


def test_names_of_evaluation_sets_and_streams_are_checked():
    data = section(evals={"test": {"streams": {"imaeg": []}}, "other": {"drop": ["imaeg"]}})
    with pytest.raises(ConfigError, match=r"data.eval has no 'tset' \(did you mean 'test'\?\)"):
        eval_streams(data, "tset")
    with pytest.raises(ConfigError, match=r"data.eval.test.streams.imaeg: is no stream \(did you"):
        evaluate(data, name="test")
    with pytest.raises(ConfigError, match=r"drop: 'imaeg' is no stream \(did you mean 'image'"):
        evaluate(data, name="other")


def test_evaluation_of_records_without_a_stream_takes_its_shape_from_training():
    spec = train().spec()
    records = source(6, image=None)
    for batch in evaluate(records=records, spec=spec).batches():
        assert batch["image"].shape == (4, 6, 6, 3) and not batch["image_present"].any()


def test_batches_that_do_not_split_over_processes_are_refused():
    with pytest.raises(ConfigError, match="batch_size: got 4, expected a multiple of 3, the number"):
        train(process_count=3)
    with pytest.raises(ConfigError, match="batch_size: got 0"):
        train(batch_size=0)
    with pytest.raises(DataError, match="toy: has no records to train on"):
        train(records=source(0))
