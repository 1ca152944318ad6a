import dataclasses

import pytest
from table_cases import EXPECTED, METRIC, declared

from mmjax.errors import ConfigError
from mmjax.reproduce import Claim, Row, experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [Row("a b", "x", "x.json")]}, "row 'a b': cannot name a directory"),
        ({"rows": [Row("a", "x", "x.json")] * 2}, "at least one row, and none twice"),
        ({"seeds": []}, "at least one seed"),
        ({"rows": [Row("a", "x", "x.json", expected={"other": EXPECTED})]}, "expected of row 'a': 'other'"),
        ({"claims": [Claim("c", METRIC, ["on"], ["two"])]}, r"'on' is unknown \(did you mean 'one'\?\)"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        declared(**changes)


def test_an_unknown_experiment_is_refused(place):
    (place / "experiment.py").write_text("EXPERIMENT = 3\n")
    with pytest.raises(ConfigError, match=r"'colors' is not an experiment \(did you mean 'colours'\?\)"):
        experiment.load("colors")
    with pytest.raises(ConfigError, match="defines no EXPERIMENT"):
        experiment.load("colours")


def test_the_digest_is_of_the_config_as_declared(config_file):
    row = Row("one", "first", str(config_file))
    assert row.config_digest() == dataclasses.replace(row, heading="other").config_digest()
    assert row.config_digest() != dataclasses.replace(row, overrides={"batch_size": "4"}).config_digest()
