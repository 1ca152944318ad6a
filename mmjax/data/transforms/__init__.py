"""Transforms: what is done to one value of one example, in order, until it is an array.

A transform is a frozen dataclass with `__call__(value, rng) -> value`; deterministic ones ignore
`rng`. A chain starts with the value of the record's feature (or the list of values, where the stream
names several features) and ends in an array of fixed shape, or in `{'value': array, 'mask': bool [L]}`
with any further arrays beside them (`targets`). A transform that needs a tokenizer has a method
`bind(tokenizers) -> transform`, called once before it is used.

A new transform is a class in the file of its modality and a line in this table.
"""

from __future__ import annotations

from mmjax.data.transforms import audio, common, image, image_augment, naflex, signal, text, video

TRANSFORMS = {
    # any modality
    "choose": common.Choose,
    "first": common.First,
    "pad": common.Pad,
    "truncate": common.Truncate,
    "normalise": common.Normalise,
    "gaussian_noise": common.GaussianNoise,
    "drop_frames": common.DropFrames,
    "random_crop_frames": common.RandomCropFrames,
    "center_crop_frames": common.CenterCropFrames,
    # images, and the frames of a video
    "decode_image": image.DecodeImage,
    "resize": image.Resize,
    "resize_short_side": image.ResizeShortSide,
    "center_crop": image.CenterCrop,
    "random_crop": image.RandomCrop,
    "random_resized_crop": image.RandomResizedCrop,
    "resize_to_patches": naflex.ResizeToPatches,
    "naflex_patches": naflex.NaflexPatches,
    "random_flip": image_augment.RandomFlip,
    "color_jitter": image_augment.ColorJitter,
    "random_grayscale": image_augment.RandomGrayscale,
    "random_blur": image_augment.RandomBlur,
    "rand_augment": image_augment.RandAugment,
    "random_erasing": image_augment.RandomErasing,
    "occlude": image_augment.Occlude,
    # text
    "clean_text": text.CleanText,
    "join_texts": text.JoinTexts,
    "tokenize": text.Tokenize,
    "mask_tokens": text.MaskTokens,
    # audio
    "decode_audio": audio.DecodeAudio,
    "white_noise": audio.WhiteNoise,
    "log_mel": audio.LogMel,
    "dynamic_range": audio.DynamicRange,
    "repeat_to": audio.RepeatTo,
    "pad_silence": audio.PadSilence,
    "standardise_frames": audio.StandardiseFrames,
    "spec_augment": audio.SpecAugment,
    # signals
    "detrend": signal.Detrend,
    "random_roll": signal.RandomRoll,
    "random_trend": signal.RandomTrend,
    # video
    "decode_video": video.DecodeVideo,
}
