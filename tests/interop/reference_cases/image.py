"""Encoders of images."""

import functools

from .common import SMALL, Case, images, tokens_and_pooled


def vit(t, **changes):
    config = t.ViTConfig(image_size=32, patch_size=8, **(SMALL | changes))
    return Case(t.ViTModel(config), images(), tokens_and_pooled("image", 1))


def vit_other_size(t):
    config = t.ViTConfig(image_size=32, patch_size=8, **SMALL)
    arguments = {"interpolate_pos_encoding": True}
    return Case(t.ViTModel(config), images(40, 24), tokens_and_pooled("image", 1), arguments)


def vit_mae(t):
    config = t.ViTMAEConfig(image_size=32, patch_size=8, mask_ratio=0.0, **SMALL)
    return Case(t.ViTMAEModel(config), images(), lambda out: {"image/pooled": out.last_hidden_state[:, 0]})


def dinov2(t, size=(28, 28), **changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2}
    config = t.Dinov2Config(image_size=28, patch_size=14, **(sizes | changes))
    return Case(t.Dinov2Model(config), images(*size), tokens_and_pooled("image", 1))


def dinov2_registers(t, size=(28, 28), image_size=28, **changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_register_tokens": 3}
    config = t.Dinov2WithRegistersConfig(image_size=image_size, patch_size=14, **(sizes | changes))
    return Case(t.Dinov2WithRegistersModel(config), images(*size), tokens_and_pooled("image", 4))


def grid_and_pooled(out):
    """A grid [B, D, rows, columns] row by row, and the pooled vector."""
    return {
        "image/tokens": out.last_hidden_state.flatten(2).transpose(1, 2),
        "image/pooled": out.pooler_output.flatten(1),
    }


def resnet(t, size=(64, 64), **changes):
    sizes = {"embedding_size": 16, "hidden_sizes": [32, 48, 64], "depths": [1, 2, 1]}
    return Case(t.ResNetModel(t.ResNetConfig(**(sizes | changes))), images(*size), grid_and_pooled)


def resnet_classifier(t):
    config = t.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1])
    return Case(
        t.ResNetForImageClassification(config),
        images(),
        lambda out: {"image/tokens": out.hidden_states[-1].flatten(2).transpose(1, 2)},
        {"output_hidden_states": True},
    )


def convnext(t, size=(32, 32), **changes):
    sizes = {"hidden_sizes": [16, 24, 32], "depths": [1, 2, 1]} | changes
    config = t.ConvNextConfig(num_stages=len(sizes["depths"]), **sizes)
    return Case(t.ConvNextModel(config), images(*size), grid_and_pooled)


CASES = {
    "vit": vit,
    "vit_no_bias": functools.partial(vit, qkv_bias=False, num_hidden_layers=3, hidden_act="silu"),
    "vit_other_size": vit_other_size,
    "vit_mae": vit_mae,
    "dinov2": dinov2,
    "dinov2_other_size": functools.partial(dinov2, size=(42, 56), layerscale_value=0.1),
    "dinov2_registers": dinov2_registers,
    "dinov2_registers_smaller": functools.partial(dinov2_registers, size=(42, 28), image_size=70),
    "resnet": resnet,
    "resnet_basic": functools.partial(resnet, layer_type="basic", hidden_act="gelu", size=(47, 65)),
    "resnet_as_in_the_paper": functools.partial(
        resnet, downsample_in_bottleneck=True, downsample_in_first_stage=True, hidden_sizes=[16, 32, 32]
    ),
    "resnet_classifier": resnet_classifier,
    "convnext": convnext,
    "convnext_other_size": functools.partial(convnext, size=(50, 37), patch_size=2, hidden_act="gelu_new"),
    "convnext_no_layer_scale": functools.partial(
        convnext, layer_scale_init_value=0.0, layer_norm_eps=1e-6, depths=[2, 1], hidden_sizes=[16, 16]
    ),
}
