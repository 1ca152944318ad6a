"""Text to token ids and back: tokenizers trained on the data, or read from a `tokenizer.json`.

The file format is the one of the Hugging Face `tokenizers` library, so a trained tokenizer opens
there and theirs open here.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers as hf
from absl import logging
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from mmjax.data.published import is_published, locate
from mmjax.data.source import Source, digest
from mmjax.errors import ConfigError, DataError
from mmjax.files import write_text

# The special tokens of trained tokenizers; their ids are 0 to 6 in this order.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]")

# The tokens that play a role in the vocabularies in use: ours, BERT, RoBERTa, T5, GPT-2, CLIP, Llama.
_ROLES = {
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<|startoftext|>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "bos": ("[BOS]", "[CLS]", "<s>", "<|startoftext|>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"),
    "eos": ("[EOS]", "[SEP]", "</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"),
}


class Tokenizer:
    """Encodes and decodes text. It pickles, and encoding depends on nothing but the text.

    Attributes:
      unk_id, cls_id, sep_id, mask_id, bos_id, eos_id: ids of the special tokens; None for those that
        the vocabulary does not have.
      pad_id: fills texts up to one length. A vocabulary without such a token (GPT-2, CLIP) is filled
        with its end, else with 0; what is filled is masked anyway.

    Args:
      backend: the tokenizer; its truncation and padding are ignored.
      special_in_text: whether '[PAD]' in a text is the special token, as in published preprocessing;
        otherwise it is text like any other.
    """

    def __init__(self, backend: hf.Tokenizer, special_in_text: bool = False):
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = not special_in_text
        self._backend = backend
        self.unk_id = self._find("unk")
        self.cls_id = self._find("cls")
        self.sep_id = self._find("sep")
        self.mask_id = self._find("mask")
        self.bos_id = self._find("bos")
        self.eos_id = self._find("eos")
        pad_id = self._find("pad")
        self.pad_id: int = pad_id if pad_id is not None else self.eos_id or 0

    def _find(self, role: str) -> int | None:
        ids = map(self._backend.token_to_id, _ROLES[role])
        return next((i for i in ids if i is not None), None)

    @classmethod
    def load(cls, path: pathlib.Path, special_in_text: bool = False) -> Tokenizer:
        """Reads a `tokenizer.json`; `special_in_text` as for the class.

        Raises:
          DataError: when there is none, or it is not one.
        """
        if not path.is_file():
            raise DataError(f"tokenizer: no file {path}; run ./launch.sh prepare --config=...")
        try:
            return cls(hf.Tokenizer.from_str(path.read_text(encoding="utf-8")), special_in_text)
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"tokenizer: {path} is not a tokenizer.json ({error})") from None

    def save(self, path: pathlib.Path) -> None:
        """Writes a `tokenizer.json`, in one step."""
        write_text(path, self._backend.to_str(pretty=True))

    def to_json(self, *template: str | None) -> str:
        """The content of a `tokenizer.json`.

        Args:
          template: the tokens that it shall put before and after a text, None for no such token; without
            them it keeps the file's own template.
        """
        backend = hf.Tokenizer.from_str(self._backend.to_str())
        if template:
            before, after = template
            tokens = {token: self.token_id(token) for token in template if token is not None}
            whole = " ".join(token for token in (before, "$A", after) if token is not None)
            backend.post_processor = processors.TemplateProcessing(
                single=whole, special_tokens=list(tokens.items())
            )
        return backend.to_str(pretty=True)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The token ids of a text.

        Args:
          text: any text.
          special: add the special tokens that the file's own template asks for (BERT's [CLS] and
            [SEP], say); trained tokenizers have no template.
        """
        return self._backend.encode(text, add_special_tokens=special).ids

    def encode_with_template(self, text: str, max_length: int, cut: str = "end") -> list[int]:
        """The token ids of a text within the special tokens of the file's own template.

        Args:
          text: any text; it is cut where the whole would be longer than `max_length`.
          max_length: longest result.
          cut: which side of the text is cut, its 'end' or its 'start'.
        """
        special = len(self._backend.encode("", add_special_tokens=True).ids)
        encoding = self._backend.encode(text, add_special_tokens=False)
        encoding.truncate(max(max_length - special, 0), direction="left" if cut == "start" else "right")
        return self._backend.post_process(encoding, None, True).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """A token as it stands in the vocabulary."""
        return self._backend.id_to_token(int(token_id))

    def token_id(self, token: str) -> int | None:
        """The id of a token as it stands in the vocabulary; None where it does not."""
        return self._backend.token_to_id(token)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the rows of an embedding table."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self._backend.to_str(pretty=True).encode()).hexdigest()

    def __getstate__(self):
        return self._backend.to_str(), not self._backend.encode_special_tokens

    def __setstate__(self, state):
        text, special_in_text = state
        self.__init__(hf.Tokenizer.from_str(text), special_in_text)


@dataclasses.dataclass(frozen=True)
class WordPiece:
    """Subwords of words and punctuation, trained on the data (Wu et al. 2016, section 4.1; as BERT's).

    Attributes:
      features: the texts to train on, by dotted name; a list, or nested texts such as `names`, count
        each by itself.
      vocab_size: tokens to aim for; all characters of the data are kept even if they are more.
      min_frequency: how often a pair must occur to be merged.
      lowercase: ignore case.
    """

    features: Sequence[str]
    vocab_size: int = 4000
    min_frequency: int = 2
    lowercase: bool = True

    def prepare(self, data_dir: pathlib.Path, source: Source) -> pathlib.Path:
        """Trains on the source; the file is kept under a digest of the settings and the data.

        Raises:
          DataError: when the source has no such feature, or no text in it.
        """
        return _cached(self, data_dir, source, self._train)

    def _train(self, texts: list[str]) -> hf.Tokenizer:
        shell = self._shell(models.WordPiece(unk_token="[UNK]"))
        # The library numbers the characters inside words in the order of a hash table, and ties
        # between merges go by number. Passing them as special tokens numbers them in order.
        inner = {f"##{c}" for text in texts for word in _words(shell, text) for c in word[1:]}
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[*SPECIAL_TOKENS, *sorted(inner)],
            show_progress=False,
        )
        shell.train_from_iterator(texts, trainer)
        trained = self._shell(models.WordPiece(shell.get_vocab(), unk_token="[UNK]"))
        trained.add_special_tokens(list(SPECIAL_TOKENS))
        return trained

    def _shell(self, model):
        tokenizer = hf.Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=self.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer


@dataclasses.dataclass(frozen=True)
class Bpe:
    """Byte-pair encoding of bytes, trained on the data (Radford et al. 2019, section 2.2; as GPT-2's).

    Any text can be encoded and comes back exactly (but for Unicode's composed form, and case).

    Attributes:
      features: as in `WordPiece`.
      vocab_size: tokens to aim for, at least the 256 bytes and 7 special ones.
      min_frequency: how often a pair must occur to be merged.
      lowercase: ignore case.
    """

    features: Sequence[str]
    vocab_size: int = 4000
    min_frequency: int = 2
    lowercase: bool = False

    def __post_init__(self):
        least = 256 + len(SPECIAL_TOKENS)
        if self.vocab_size < least:
            raise ConfigError(f"bpe.vocab_size: got {self.vocab_size}, expected at least {least}")

    def prepare(self, data_dir: pathlib.Path, source: Source) -> pathlib.Path:
        """Trains on the source; the file is kept under a digest of the settings and the data.

        Raises:
          DataError: when the source has no such feature, or no text in it.
        """
        return _cached(self, data_dir, source, self._train)

    def _train(self, texts: list[str]) -> hf.Tokenizer:
        tokenizer = hf.Tokenizer(models.BPE())
        cases = [normalizers.Lowercase()] if self.lowercase else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *cases])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer


@dataclasses.dataclass(frozen=True)
class Words:
    """Whole words: runs of letters and digits. A word that the data does not have is the unknown token.

    Pieces of a word that was never seen say little of its meaning and much that is not in it; a bag of
    words is better off without them.

    Attributes:
      features: as in `WordPiece`.
      vocab_size: most tokens, the 7 special ones included; the most frequent words stay.
      min_frequency: how often a word must occur to be kept.
      lowercase: ignore case.
    """

    features: Sequence[str]
    vocab_size: int = 30000
    min_frequency: int = 1
    lowercase: bool = True

    def __post_init__(self):
        least = len(SPECIAL_TOKENS) + 1
        if self.vocab_size < least:
            raise ConfigError(f"words.vocab_size: got {self.vocab_size}, expected at least {least}")

    def prepare(self, data_dir: pathlib.Path, source: Source) -> pathlib.Path:
        """Counts the words of the source; the file is kept under a digest of the settings and the data.

        Raises:
          DataError: when the source has no such feature, or no text in it.
        """
        return _cached(self, data_dir, source, self._train)

    def _train(self, texts: list[str]) -> hf.Tokenizer:
        tokenizer = hf.Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
        cases = [normalizers.Lowercase()] if self.lowercase else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *cases])
        tokenizer.pre_tokenizer = pre_tokenizers.Split(hf.Regex(r"\w+"), behavior="removed", invert=True)
        counts = collections.Counter(word for text in texts for word in _words(tokenizer, text))
        # The library's trainer breaks ties in the order of a hash table.
        words = sorted(
            (w for w, n in counts.items() if n >= self.min_frequency), key=lambda w: (-counts[w], w)
        )
        tokens = list(dict.fromkeys([*SPECIAL_TOKENS, *words]))[: self.vocab_size]
        tokenizer.model = models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        return tokenizer


@dataclasses.dataclass(frozen=True)
class File:
    """Any `tokenizer.json`, such as one that comes with pretrained weights.

    Attributes:
      path: the file; or a published checkpoint that has one, 'hf:...' or 'package:...', see
        `mmjax.data.published`.
    """

    path: str

    def prepare(self, data_dir: pathlib.Path, source: Source) -> pathlib.Path:
        """The file, after reading it once.

        Raises:
          DataError: when there is none, or it is not one.
        """
        if is_published(self.path):
            path = locate(self.path) / "tokenizer.json"
        else:
            path = pathlib.Path(self.path).expanduser()
        if not path.is_file():
            raise DataError(f"tokenizer: no file {path}; put it there, or set data.tokenizers.<name>.path")
        Tokenizer.load(path)
        return path


TOKENIZERS = {"bpe": Bpe, "file": File, "wordpiece": WordPiece, "words": Words}


def _cached(component, data_dir, source, train) -> pathlib.Path:
    """The trained tokenizer's file; trains it when there is none."""
    kind = type(component).__name__.lower()
    settings = digest([kind, dataclasses.asdict(component), source.fingerprint])
    path = data_dir / "tokenizers" / f"{kind}-{settings[:32]}.json"
    if not path.exists():
        texts = list(_texts(component.features, source))
        if not texts:
            raise DataError(f"tokenizer '{kind}': {source.name} has no text in {list(component.features)}")
        logging.info("tokenizer %s: training on %d texts of %s", kind, len(texts), source.name)
        Tokenizer(train(texts)).save(path)
    return path


def _texts(features: Sequence[str], source: Source) -> Iterator[str]:
    for path in features:
        for value in source.column(path):
            yield from _strings(value, path)


def _strings(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item, path)
    elif value is not None:
        raise ConfigError(f"tokenizer.features: '{path}' holds {type(value).__name__}, expected text")


def _words(tokenizer: hf.Tokenizer, text: str) -> list[str]:
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
