"""Tiny random models of transformers, and what of theirs equals what of ours.

Each case is a function of the module `transformers` that gives a `Case`; weights are drawn anew, so
that no norm is left at one and no bias at zero. A new one is a line in CASES of its file.
"""

from . import audio, clap, image, open_clip, text, two_towers, video

CASES = {
    **text.CASES,
    **image.CASES,
    **audio.CASES,
    **video.CASES,
    **two_towers.CASES,
    **open_clip.CASES,
    **clap.CASES,
}
