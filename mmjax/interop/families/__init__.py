"""Families of published models. A new one is one file and one line here."""

from mmjax.interop.families import bert, clip, convnext, dinov2, resnet, roberta, siglip, vit, vit_mae

FAMILIES = {
    "clip": clip.FAMILY,
    "siglip": siglip.FAMILY,
    "vit": vit.FAMILY,
    "vit_mae": vit_mae.FAMILY,
    "dinov2": dinov2.FAMILY,
    "resnet": resnet.FAMILY,
    "convnext": convnext.FAMILY,
    "bert": bert.FAMILY,
    "roberta": roberta.FAMILY,
}
