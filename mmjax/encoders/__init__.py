"""Encoders: from one stream's array to `Features`. A new one is one file and one line here.

Each is called as `encoder(x, mask=None, *, train=False)`. `mask` says which tokens, frames or patches
are real; images may also take `[B, 1]`, which images are. What is not real changes no result.

Where the input of an encoder is not what the kind of its stream says, its class says so: `axes` are
the axes of one example, and `further` the names of arrays '<stream>_<name>' of the batch that it takes
as keywords.
"""

from mmjax.encoders.audio_cnn import AudioCNN
from mmjax.encoders.audio_transformer import AudioTransformer
from mmjax.encoders.clap_audio import ClapAudio
from mmjax.encoders.cnn import CNN
from mmjax.encoders.convnext import ConvNeXt
from mmjax.encoders.embedding_bag import EmbeddingBag
from mmjax.encoders.flatten import Flatten
from mmjax.encoders.frame_wise import FrameWise
from mmjax.encoders.image_descriptors import ImageDescriptors
from mmjax.encoders.mlp import MLPEncoder
from mmjax.encoders.naflex_vit import NaflexViT
from mmjax.encoders.resnet import ResNet
from mmjax.encoders.rnn import RNN
from mmjax.encoders.sequence_reader import SequenceReader
from mmjax.encoders.spectrogram_transformer import SpectrogramTransformer
from mmjax.encoders.text_transformer import TextTransformer
from mmjax.encoders.timesformer import TimeSformer
from mmjax.encoders.vectors import Vectors
from mmjax.encoders.video_transformer import VideoTransformer
from mmjax.encoders.vit import ViT
from mmjax.encoders.wav2vec2 import Wav2Vec2
from mmjax.encoders.whisper import Whisper

ENCODERS = {
    "vit": ViT,
    "naflex_vit": NaflexViT,
    "cnn": CNN,
    "image_descriptors": ImageDescriptors,
    "resnet": ResNet,
    "convnext": ConvNeXt,
    "text_transformer": TextTransformer,
    "embedding_bag": EmbeddingBag,
    "rnn": RNN,
    "mlp": MLPEncoder,
    "flatten": Flatten,
    "vectors": Vectors,
    "audio_transformer": AudioTransformer,
    "spectrogram_transformer": SpectrogramTransformer,
    "whisper": Whisper,
    "audio_cnn": AudioCNN,
    "clap_audio": ClapAudio,
    "wav2vec2": Wav2Vec2,
    "frame_wise": FrameWise,
    "video_transformer": VideoTransformer,
    "timesformer": TimeSformer,
    "sequence_reader": SequenceReader,
}
