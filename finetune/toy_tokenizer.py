"""The toy community's tokenizer: SentencePiece unigram, with the sentinels where mT5 has them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ..core.errors import ValueshiftError
from ..harness_ext.models import load_tokenizer

MODEL = "spiece.model"
SENTINELS = 100
PIECES = 4000


def train_tokenizer(sentences: Sequence[str], folder: Path, pieces: int = PIECES) -> Any:
    """Train a tokenizer on the sentences, write it to `folder` as mT5's files, and load it.

    At most `pieces` pieces are learned; sentences of few languages yield fewer. Ids as in mT5: `<pad>` 0, `</s>` 1, `<unk>` 2,
    no `<s>`; the last 100 are `▁<extra_id_99>` ... `▁<extra_id_0>`. The same sentences give the same bytes.

    Raises:
        ValueshiftError: the sentences have more characters than a toy vocabulary holds.
    """
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            model_type="unigram",
            vocab_size=pieces,
            hard_vocab_limit=False,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueshiftError(
            f"no toy tokenizer can be trained on these probes ({error}); take fewer languages"
        ) from error
    (folder / MODEL).write_bytes(_with_sentinels(written.getvalue()))
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 0,  # the sentinels are pieces of the vocabulary; more would lie past the embedding
        "additional_special_tokens": None,  # stated as in mT5's file: left out, version 5 makes every sentinel a special token
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return load_tokenizer(str(folder))


def _with_sentinels(model: bytes) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    for number in reversed(range(SENTINELS)):
        piece = proto.pieces.add()
        piece.piece, piece.score = f"▁<extra_id_{number}>", 0.0
        piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
    return bytes(proto.SerializeToString(deterministic=True))
