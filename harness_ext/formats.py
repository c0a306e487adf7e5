"""How a probe is put to a model: as token ids (our own scoring) and as strings (the harness), for each model family.

Encoder-decoder: encoder ids = prefix + sentinel 0 + suffix + `</s>`, decoder target = sentinel 0 + option.
Causal: log p(option + suffix | prefix); an empty prefix means BOS. Masked: the option's tokens in the mask's place.
Whitespace beside the mask decides whether option and suffix begin a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..core.errors import ValueshiftError
from ..core.probes import Probe
from ..core.sentinels import Sentinels

Format = Literal["encoder-decoder", "causal", "masked"]
FORMATS: tuple[str, ...] = get_args(Format)

_ANCHORS = ("x", "a", "1", "-", "~", "क", "한")


@dataclass(frozen=True)
class EncoderDecoderIds:
    """Token ids of one probe: encoder input (with `</s>`) and both options (without sentinel)."""

    encoder: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]


@dataclass(frozen=True)
class Strings:
    """What the harness is given for one probe: `loglikelihood(context, continuation)` for both options."""

    context: str
    first: str
    second: str


def _glued_left(probe: Probe) -> bool:
    """Whether the option continues the word before the mask."""
    return bool(probe.prefix) and not probe.prefix[-1].isspace()


def _glued_right(probe: Probe) -> bool:
    """Whether the text after the mask continues the option's word (punctuation too)."""
    return bool(probe.suffix) and not probe.suffix[0].isspace()


def piece_ids(tokenizer: Any, text: str, glued: bool) -> tuple[int, ...]:
    """Ids of `text` inside a sentence: after a space, or glued to what stands before it.

    The ids are those that follow an anchor, so they do not depend on what a tokenizer does at the start of a string.

    Raises:
        ValueshiftError: no anchor leaves the tokens of `text` apart from its own.
    """
    text = text.strip()
    if not text:
        return ()
    for anchor in _ANCHORS:
        start = _ids(tokenizer, anchor)
        whole = _ids(tokenizer, anchor + ("" if glued else " ") + text)
        if whole[: len(start)] == start:
            return whole[len(start) :]
    raise ValueshiftError(f"the tokenizer joins '{text}' with every character before it; it cannot be asked for alone")


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def encoder_decoder_ids(probe: Probe, tokenizer: Any, sentinels: Sentinels) -> EncoderDecoderIds:
    """The ids of one probe for an encoder-decoder model.

    Raises:
        ValueshiftError: an option has no tokens, only unknown ones, or the same as the other option.
    """
    encoder = (
        *_ids(tokenizer, probe.prefix.rstrip()),
        sentinels.ids[0],
        *piece_ids(tokenizer, probe.suffix, _glued_right(probe)),
        tokenizer.eos_token_id,
    )
    glued = _glued_left(probe)
    ids = EncoderDecoderIds(
        encoder, piece_ids(tokenizer, probe.first, glued), piece_ids(tokenizer, probe.second, glued)
    )
    check_options(probe, tokenizer, ids.first, ids.second)
    return ids


def causal_token_counts(probe: Probe, tokenizer: Any) -> tuple[int, int]:
    """Tokens that each option adds after the prefix, as a causal tokenizer splits them."""
    before = len(_ids(tokenizer, probe.prefix.rstrip()))
    first, second = (len(_ids(tokenizer, probe.prefix + option)) - before for option in (probe.first, probe.second))
    return first, second


def masked_token_counts(probe: Probe, tokenizer: Any) -> tuple[int, int]:
    """Tokens of each option in the mask's place.

    Raises:
        ValueshiftError: as `check_options`.
    """
    glued = _glued_left(probe)
    first, second = piece_ids(tokenizer, probe.first, glued), piece_ids(tokenizer, probe.second, glued)
    check_options(probe, tokenizer, first, second)
    return len(first), len(second)


def check_options(probe: Probe, tokenizer: Any, first: Sequence[int], second: Sequence[int]) -> None:
    """Refuse options that this tokenizer cannot tell from nothing or from each other.

    Raises:
        ValueshiftError: names language, question, option and remedy.
    """
    where = f"{probe.probe_set} {probe.language} {probe.question}"
    for option, ids in ((probe.first, first), (probe.second, second)):
        if not ids:
            raise ValueshiftError(f"{where}: the tokenizer turns option '{option}' into nothing; change the option")
        if all(token == tokenizer.unk_token_id for token in ids):
            raise ValueshiftError(
                f"{where}: the tokenizer does not know option '{option}'; use a model that knows the language's script"
            )
    if tuple(first) == tuple(second):
        raise ValueshiftError(
            f"{where}: the tokenizer turns '{probe.first}' and '{probe.second}' into the same tokens; change an option"
        )


def strings(probe: Probe, asked: Format, sentinels: Sentinels | None = None, mask_token: str | None = None) -> Strings:
    """What the harness is given for one probe."""
    if asked == "causal":
        return Strings(probe.prefix, probe.first + probe.suffix, probe.second + probe.suffix)
    if asked == "masked":
        return Strings(f"{probe.prefix}{mask_token}{probe.suffix}", probe.first, probe.second)
    if sentinels is None:
        raise TypeError("the encoder-decoder format needs the sentinels of the model's tokenizer")
    spaced = sentinels.needs_space and _glued_left(probe)
    between = "" if _glued_left(probe) else " "
    return Strings(
        f"{probe.prefix}{' ' if spaced else ''}{sentinels.text}{probe.suffix}",
        f"{sentinels.text}{between}{probe.first}",
        f"{sentinels.text}{between}{probe.second}",
    )
