import outside
import pytest

try:
    import torch
    import transformers
except ImportError:
    torch = transformers = None


@pytest.fixture(scope="session")
def hf():
    """transformers, with which weights are compared; absent only where nobody asked for it."""
    if transformers is None:
        outside.missing("torch and transformers are not installed: MMJAX_REFERENCE=1 ./launch.sh test")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
