"""Families of published models. A new one is one file and one line here."""

from mmjax.interop.families import (
    ast,
    bert,
    clap,
    clip,
    convnext,
    dinov2,
    resnet,
    roberta,
    siglip,
    timesformer,
    videomae,
    vit,
    vit_mae,
    vivit,
    wav2vec2,
    whisper,
)

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
    "ast": ast.FAMILY,
    "whisper": whisper.FAMILY,
    "wav2vec2": wav2vec2.FAMILY,
    "clap": clap.FAMILY,
    "videomae": videomae.FAMILY,
    "vivit": vivit.FAMILY,
    "timesformer": timesformer.FAMILY,
}
