"""Encoders of videos."""

import functools

import numpy as np

from .common import SMALL, Case, tokens_and_pooled


def videos(frames, height, width):
    rng = np.random.default_rng(3)
    return {"video": rng.normal(size=(2, frames, height, width, 3)).astype(np.float32)}


def videomae(t, frames=4, **changes):
    """Of 224 pixels, the size that is written; dark, since a patch sums over a thousand numbers."""
    config = t.VideoMAEConfig(image_size=224, patch_size=14, num_frames=frames, **(SMALL | changes))
    return Case(
        t.VideoMAEModel(config),
        {"video": 0.1 * videos(frames, 224, 224)["video"]},
        lambda out: {
            "video/tokens": out.last_hidden_state,
            "video/pooled": out.last_hidden_state.mean(dim=1),
        },
    )


def videomae_classifier(t):
    """Its mean is normalised for the classifier, which is no part of the encoder."""
    config = t.VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, **SMALL)
    return Case(
        t.VideoMAEForVideoClassification(config),
        videos(4, 16, 16),
        lambda out: {"video/tokens": out.hidden_states[-1]},
        {"output_hidden_states": True},
    )


def vivit(t, size=(16, 16), tubelet=(2, 8, 8), frames=4, **changes):
    config = t.VivitConfig(
        image_size=list(size), tubelet_size=list(tubelet), num_frames=frames, **(SMALL | changes)
    )
    return Case(t.VivitModel(config), videos(frames, *size), tokens_and_pooled("video", 1))


def vivit_classifier(t):
    config = t.VivitConfig(image_size=16, tubelet_size=[2, 8, 8], num_frames=4, **SMALL)
    model = t.VivitForVideoClassification(config)
    return Case(
        model,
        videos(4, 16, 16),
        lambda out: {"video/tokens": model.vivit.layernorm(out.hidden_states[-1])[:, 1:].detach()},
        {"output_hidden_states": True},
    )


def timesformer(t, side=16, frames=3, **changes):
    config = t.TimesformerConfig(image_size=side, patch_size=8, num_frames=frames, **(SMALL | changes))

    def outputs(out):
        tokens = out.last_hidden_state[:, 1:].reshape(2, (side // 8) ** 2, frames, -1).transpose(1, 2)
        return {"video/tokens": tokens.flatten(1, 2), "video/pooled": out.last_hidden_state[:, 0]}

    return Case(t.TimesformerModel(config), videos(frames, side, side), outputs)


CASES = {
    "videomae": videomae,
    "videomae_normed": functools.partial(
        videomae, frames=8, tubelet_size=4, use_mean_pooling=False, hidden_act="gelu_new"
    ),
    "videomae_no_bias": functools.partial(videomae, qv_bias=False, num_hidden_layers=3),
    "videomae_classifier": videomae_classifier,
    "vivit": vivit,
    "vivit_oblong": functools.partial(
        vivit, size=(16, 24), tubelet=(3, 8, 8), frames=6, qkv_bias=False, hidden_act="gelu"
    ),
    "vivit_classifier": vivit_classifier,
    "timesformer": timesformer,
    "timesformer_no_bias": functools.partial(
        timesformer, side=24, frames=5, qkv_bias=False, hidden_act="relu", num_hidden_layers=3
    ),
}
