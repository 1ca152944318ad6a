import pytest

from mmjax import components
from mmjax.evaluation import EVALUATORS, Evaluator


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_every_evaluator_has_the_shared_fields(name):
    fields = components.fields(EVALUATORS[name])
    assert issubclass(EVALUATORS[name], Evaluator)
    assert {"data", "prefix", "every_steps", "every_epochs", "every_examples", "every_percent"} <= set(fields)
    undocumented = [f for f in vars(EVALUATORS[name])["__annotations__"] if f not in EVALUATORS[name].__doc__]
    assert not undocumented
