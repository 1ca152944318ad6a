"""Computes a case of `reference_cases` in transformers and in mmjax."""

import jax
import numpy as np

try:
    import torch
except ImportError:
    torch = None  # what needs it takes the fixture `hf`, which skips or fails then

from mmjax import interop

# Our stream -> the name of their argument, and how the array is turned for it.
_ARGUMENTS = {
    "text": ("input_ids", lambda x: x.astype(np.int64)),
    "text_mask": ("attention_mask", lambda x: x.astype(np.int64)),
    "image": ("pixel_values", lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
    "video": ("pixel_values", lambda x: np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3))),
}


def randomise(model, seed=0):
    """Draws every parameter and statistic anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        for name, tensor in model.named_buffers():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


def their_inputs(batch):
    """Their arguments for a batch of ours."""
    turned = {}
    for name, array in batch.items():
        key, turn = _ARGUMENTS[name]
        turned[key] = turn(array)
    return turned


def theirs(case, model=None):
    """name -> array, by their model."""
    given = (case.inputs or their_inputs)(case.batch)
    arguments = {name: torch.from_numpy(array) for name, array in given.items()} | dict(case.arguments)
    with torch.no_grad():
        out = (model or case.model)(**arguments)
    return {name: np.asarray(value) for name, value in case.outputs(out).items()}


def ours(case, model, variables):
    """name -> array, by our model."""
    return jax.tree.map(np.asarray, jax.jit(model.apply)(variables, dict(case.batch)))


def largest_difference(got, expected, name):
    """Over what is real: tokens behind the mask are zeros here and whatever there."""
    difference = np.abs(got[name] - expected[name])
    if name.endswith("/tokens"):
        difference = difference[got[name.replace("/tokens", "/mask")]]
    return float(difference.max())


def save(case, directory):
    """Writes their model; returns the directory."""
    model = randomise(case.model)
    if case.write is None:
        model.save_pretrained(directory)
    else:
        directory.mkdir(exist_ok=True)
        case.write(model, directory)
    return directory


def imported(case, directory):
    return interop.from_pretrained(save(case, directory))
