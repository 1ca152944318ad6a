"""The checker of signatures that the tests install, see `conftest.py`."""

from beartype import beartype


def check_calls(function):
    """`beartype`, except for constructors.

    Linen turns a module's lists into tuples and its dicts into frozen ones when it copies the module,
    so they no longer are what the fields' annotations, which are the schema of configs, say.
    """
    return function if function.__name__ == "__init__" else beartype(function)
