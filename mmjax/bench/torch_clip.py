"""CLIP in PyTorch: as transformers has it, and as open_clip has it where that is installed."""

from __future__ import annotations

import abc
import contextlib
import importlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.errors import MmjaxError

_OPEN_CLIP_MODEL = "ViT-B-32-quickgelu"
_ADAMW = {"lr": 5e-4, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.2, "fused": True}


def has_open_clip() -> bool:
    """Whether open_clip can be imported."""
    try:
        importlib.import_module("open_clip")
    except (ImportError, RuntimeError):  # its torchvision is not for this torch
        return False
    return True


def import_torch() -> Any:
    """The module `torch`; `MmjaxError` where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise MmjaxError(
            "bench: PyTorch is not installed; ./launch.sh bench installs it by itself, elsewhere: "
            "pip install 'mmjax[reference]'"
        ) from None


class Theirs(abc.ABC):
    """A model of PyTorch, called with our arrays.

    Attributes:
      name: of the library.
      version: of it and of PyTorch.
    """

    name: str

    def __init__(self, model: Any, version: str):
        self._torch = import_torch()
        self._model = model
        self.version = f"{version} (PyTorch {self._torch.__version__})"

    def embed(self, stream: str, array: np.ndarray) -> np.ndarray:
        """Embeddings `[B, D]` of length one, in float32."""
        vectors = self.encode(stream, array, "float32")
        return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()

    def encode(self, stream: str, array: np.ndarray, dtype: str) -> Any:
        """A batch through one encoder and its projection."""
        with self._torch.inference_mode(), self._precision(dtype):
            return self._encode(stream, self._tensor(stream, array))

    def trainer(self, inputs: Mapping[str, np.ndarray], dtype: str) -> Callable[[], None]:
        """A call that makes one training step."""
        optimizer = self._torch.optim.AdamW(self._model.parameters(), **_ADAMW)
        image, text = (self._tensor(name, inputs[name]) for name in ("image", "text"))

        def train() -> None:
            with self._precision(dtype):
                loss = self._loss(image, text)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return train

    def _precision(self, dtype: str) -> contextlib.AbstractContextManager:
        half = dtype == "bfloat16"
        return self._torch.autocast("cpu", self._torch.bfloat16) if half else contextlib.nullcontext()

    def _tensor(self, stream: str, array: np.ndarray) -> Any:
        if stream == "image":
            return self._torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
        return self._torch.from_numpy(array.astype(np.int64))

    @abc.abstractmethod
    def _encode(self, stream: str, tensor: Any) -> Any:
        """Projected vectors `[B, D]`."""

    @abc.abstractmethod
    def _loss(self, image: Any, text: Any) -> Any:
        """The contrastive loss of a batch."""


class Transformers(Theirs):
    """`CLIPModel` of transformers.

    Args:
      folder: with weights as transformers reads them.
    """

    name = "transformers"

    def __init__(self, folder: pathlib.Path):
        import_torch()
        transformers = importlib.import_module("transformers")
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        model = transformers.CLIPModel.from_pretrained(folder, attn_implementation="sdpa")
        super().__init__(model.train(), transformers.__version__)

    def _encode(self, stream, tensor):
        call = self._model.get_image_features if stream == "image" else self._model.get_text_features
        found = call(tensor)
        return getattr(found, "pooler_output", found)  # newer versions return more than the vectors

    def _loss(self, image, text):
        return self._model(input_ids=text, pixel_values=image, return_loss=True).loss


class OpenClip(Theirs):
    """open_clip's model with fresh weights.

    Args:
      folder: a new one, into which the weights are written as open_clip publishes them.
    """

    name = "open_clip"

    def __init__(self, folder: pathlib.Path):
        torch = import_torch()
        open_clip = importlib.import_module("open_clip")
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = open_clip.create_model(_OPEN_CLIP_MODEL)
        super().__init__(model.train(), open_clip.__version__)
        self._clip_loss = open_clip.ClipLoss()
        folder.mkdir(parents=True)
        tensors = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors")
        settings = {"model_cfg": open_clip.get_model_config(_OPEN_CLIP_MODEL), "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(settings))

    def _encode(self, stream, tensor):
        call = self._model.encode_image if stream == "image" else self._model.encode_text
        return call(tensor)

    def _loss(self, image, text):
        return self._clip_loss(*self._model(image, text))
