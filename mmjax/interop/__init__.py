"""Weights in and out of the layouts of Hugging Face transformers.

    model, variables, preprocess = interop.from_pretrained("owner/name")    # or a directory
    outputs = model.apply(variables, preprocess(text=["a photo", "a drawing"]))
    interop.save_pretrained(model, variables, "out", preprocess=preprocess)

A family of models is one file in `families/`: how its config.json reads as a `model` section of ours,
and which of its tensors holds the numbers of which of our variables, one table for both directions.
Nothing but JSON and safetensors is read; transformers itself is not needed. Checkpoints of open_clip are
read too, and written as transformers has them. docs/models.md lists the models.
"""

from mmjax.interop.families import FAMILIES
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import Pretrained, from_pretrained, save_pretrained

__all__ = ["FAMILIES", "Preprocess", "Pretrained", "from_pretrained", "save_pretrained"]
