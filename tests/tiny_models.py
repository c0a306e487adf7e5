"""Random checkpoints of a few thousand weights, with tokenizers trained on given sentences: what the fixtures of models write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def train_sentencepiece(sentences: list[str], folder: Path, sentinels: int) -> None:
    """A T5 tokenizer trained on the sentences, with the last `sentinels` pieces being sentinels as in mT5."""
    from sentencepiece import sentencepiece_model_pb2

    path = folder / "spiece.model"
    _train_pieces(path, sentences, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    for number in reversed(range(sentinels)):
        piece = proto.pieces.add()
        piece.piece, piece.score = f"▁<extra_id_{number}>", 0.0
        piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
    path.write_bytes(proto.SerializeToString())
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings |= {"extra_ids": 0} if sentinels else {"extra_ids": 20}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def random_mt5(folder: Path, untied: bool) -> None:
    """Random weights, large enough that answers differ; an untied head is written as real mT5 has it."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration

    rows = len(AutoTokenizer.from_pretrained(folder)) + 12
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    generator = torch.Generator().manual_seed(0)
    model = MT5ForConditionalGeneration(
        MT5Config(vocab_size=rows, decoder_start_token_id=0, tie_word_embeddings=not untied, **shape)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3, generator=generator)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    if untied:
        weights["lm_head.weight"] = torch.empty(rows, shape["d_model"]).normal_(std=0.3, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": not untied}), encoding="utf-8")


def _gpt2_tokenizer(sentences: list[str], folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(sentences, vocab_size=1500, special_tokens=["<|endoftext|>"], show_progress=False)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end).save_pretrained(folder)


def _llama_tokenizer(sentences: list[str], folder: Path) -> None:
    """As Llama's: a mark of the space before words, `<s>` put in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=2500, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator((word for text in sentences for word in text.split()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _bert_tokenizer(sentences: list[str], folder: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    pieces.train_from_iterator(sentences, vocab_size=2500, min_frequency=1, limit_alphabet=5000, show_progress=False)
    pieces.save_model(str(folder))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _train_pieces(file: Path, sentences: list[str], **specials: Any) -> None:
    import sentencepiece

    with file.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=stream,
            vocab_size=2000,
            character_coverage=1.0,
            num_threads=1,
            minloglevel=2,
            **specials,
        )


def _sentencepiece(file: str, settings: dict[str, Any], **specials: Any) -> Callable[[list[str], Path], None]:
    def train(sentences: list[str], folder: Path) -> None:
        _train_pieces(folder / file, sentences, **specials)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    return train


TOKENIZERS: dict[str, Callable[[list[str], Path], None]] = {
    "gpt2": _gpt2_tokenizer,
    "llama": _llama_tokenizer,
    "bert": _bert_tokenizer,
    "xlm-roberta": _sentencepiece("sentencepiece.bpe.model", {"tokenizer_class": "XLMRobertaTokenizer"}),
    "deberta": _sentencepiece(
        "spm.model",
        {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False, "split_by_punct": False},
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        user_defined_symbols=["[MASK]"],
    ),
}


def random_model(name: str, folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoTokenizer

    kind = {"deberta": "deberta-v2"}.get(name, name)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    rows = len(AutoTokenizer.from_pretrained(folder))
    small = {"vocab_size": rows, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"intermediate_size": 48, "max_position_embeddings": 128}
    if name == "gpt2":
        small = {"vocab_size": rows, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    if name == "llama":
        small |= {"num_key_value_heads": 2, "tie_word_embeddings": False}
    if name == "deberta":
        small |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        small |= {"type_vocab_size": 0, "legacy": False, "tie_word_embeddings": False}
    config = transformers.AutoConfig.for_model(kind, **small)
    auto = transformers.AutoModelForCausalLM if name in ("gpt2", "llama") else transformers.AutoModelForMaskedLM
    torch.manual_seed(0)
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    if name == "deberta":  # as released: nothing in the configuration says how the head's parts are named
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for key in ("legacy", "architectures", "tie_word_embeddings"):
            stated.pop(key, None)
        (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
