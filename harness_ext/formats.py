"""How a probe is put to a model: as token ids (our own scoring) and as strings (the harness), for each model family.

Encoder-decoder: encoder ids = prefix + sentinel 0 + suffix + `</s>`, decoder target = sentinel 0 + option.
Causal: log p(option + suffix | prefix); an empty prefix means BOS. Masked: pseudo-log-likelihood of the option's tokens in the
mask's place. Whitespace beside the mask decides whether option and suffix begin a word.
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

    @property
    def length(self) -> int:
        """The longest sequence that the model sees."""
        return max(map(len, (self.encoder, self.first, self.second)))

    @property
    def cost(self) -> int:
        """Tokens that go through the encoder."""
        return len(self.encoder)

    @property
    def scored(self) -> tuple[int, int]:
        """Tokens whose log-probabilities are summed, for each option."""
        return len(self.first), len(self.second)


@dataclass(frozen=True)
class CausalIds:
    """Token ids of one probe: what stands before the mask (at least one token), and option + suffix for both options."""

    context: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]

    @property
    def length(self) -> int:
        """The longest sequence that the model sees."""
        return len(self.context) + max(len(self.first), len(self.second)) - 1

    @property
    def cost(self) -> int:
        """Tokens that go through the model."""
        return 2 * self.length

    @property
    def scored(self) -> tuple[int, int]:
        """Tokens whose log-probabilities are summed, for each option."""
        return len(self.first), len(self.second)


@dataclass(frozen=True)
class MaskedOption:
    """A statement with one option in it: its token ids, and for each token of the option where it is and what is masked.

    `masks[i]` holds the positions that are masked while token `positions[i]` is scored: its own and those of the later
    tokens of its word [Kauf and Ivanova 2023: within-word left-to-right].
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    masks: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The option's tokens."""
        return tuple(self.ids[position] for position in self.positions)

    @property
    def length(self) -> int:
        """The sequence that the model sees."""
        return len(self.ids)

    @property
    def cost(self) -> int:
        """Tokens that go through the model: the statement once for each token of the option."""
        return len(self.ids) * len(self.positions)


@dataclass(frozen=True)
class MaskedIds:
    """Token ids of one probe for a masked model."""

    first: MaskedOption
    second: MaskedOption

    @property
    def length(self) -> int:
        """The longest sequence that the model sees."""
        return max(self.first.length, self.second.length)

    @property
    def cost(self) -> int:
        """Tokens that go through the model."""
        return self.first.cost + self.second.cost

    @property
    def scored(self) -> tuple[int, int]:
        """Tokens whose log-probabilities are summed, for each option."""
        return len(self.first.positions), len(self.second.positions)


Ids = EncoderDecoderIds | CausalIds | MaskedIds


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


def causal_ids(probe: Probe, tokenizer: Any) -> CausalIds:
    """The ids of one probe for a causal model, by the harness's own rule.

    Whitespace before the mask goes to the option, both are split as they stand together, and an empty prefix is BOS, or EOS
    where a tokenizer has no BOS (`TemplateLM._encode_pair` and `loglikelihood` of lm-eval 0.4.13).

    Raises:
        ValueshiftError: as `check_options`.
    """
    prefix = probe.prefix.rstrip()
    if prefix:
        context = tuple(tokenizer.encode(prefix))
    else:
        bos = tokenizer.bos_token_id
        context = (tokenizer.eos_token_id if bos is None else bos,)

    def after(text: str) -> tuple[int, ...]:
        if not prefix:
            return _ids(tokenizer, text)
        return tuple(tokenizer.encode(probe.prefix + text))[len(context) :]

    check_options(probe, tokenizer, after(probe.first), after(probe.second))
    first, second = after(probe.first + probe.suffix), after(probe.second + probe.suffix)
    return CausalIds(context, first, second)


def masked_ids(probe: Probe, tokenizer: Any) -> MaskedIds:
    """The ids of one probe for a masked model.

    Raises:
        ValueshiftError: as `check_options` and `masked_option`.
    """
    first, second = (
        masked_option(probe.prefix, option, probe.suffix, tokenizer) for option in (probe.first, probe.second)
    )
    check_options(probe, tokenizer, first.tokens, second.tokens)
    return MaskedIds(first, second)


def masked_option(prefix: str, option: str, suffix: str, tokenizer: Any) -> MaskedOption:
    """An option in its statement, split as the tokenizer splits the whole, so that no token is one a model never saw.

    The option's tokens are all that hold one of its characters, and a mark of the space before it. Words are the tokenizer's.

    Raises:
        ValueshiftError: the tokenizer cannot say which characters a token stands for.
    """
    if not tokenizer.is_fast:
        raise ValueshiftError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; use the fast tokenizer"
        )
    encoded = tokenizer(prefix + option + suffix, return_offsets_mapping=True)
    begin, end = len(prefix.rstrip()), len((prefix + option).rstrip())
    words = encoded.word_ids()
    positions = tuple(
        position
        for position, (start, stop) in enumerate(encoded["offset_mapping"])
        if words[position] is not None and start < end and stop > begin
    )
    masks = tuple(
        tuple(later for later in range(position, len(words)) if words[later] == words[position])
        for position in positions
    )
    return MaskedOption(tuple(encoded["input_ids"]), positions, masks)


def scored_texts(probe: Probe, asked: Format) -> tuple[str, str]:
    """The text whose log-probability is taken for each option: the option, and with a causal model also what follows it."""
    after = probe.suffix if asked == "causal" else ""
    return probe.first + after, probe.second + after


def check_options(probe: Probe, tokenizer: Any, first: Sequence[int], second: Sequence[int]) -> None:
    """Refuse options that this tokenizer cannot tell from nothing or from each other.

    Raises:
        ValueshiftError: names language, question, option and remedy.
    """
    where = f"{probe.probe_set} {probe.language} {probe.question}"
    for option, ids in ((probe.first, first), (probe.second, second)):
        if not ids:
            raise ValueshiftError(f"{where}: the tokenizer turns option '{option}' into nothing; change the option")
        if _unknown(tokenizer, ids):
            raise ValueshiftError(
                f"{where}: the tokenizer does not know option '{option}'; use a model that knows the language's script"
            )
    if tuple(first) == tuple(second):
        raise ValueshiftError(
            f"{where}: the tokenizer turns '{probe.first}' and '{probe.second}' into the same tokens; change an option"
        )


def _unknown(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether nothing but a mark of the space before it is known of an option."""
    unknown = tokenizer.unk_token_id
    return unknown in ids and all(id == unknown or tokenizer.convert_ids_to_tokens(id) == "▁" for id in ids)


def strings(probe: Probe, asked: Format, sentinels: Sentinels | None = None, mask_token: str | None = None) -> Strings:
    """What the harness is given for one probe."""
    if asked == "causal":
        prefix = probe.prefix.rstrip()
        space = (
            probe.prefix[len(prefix) :] if prefix else ""
        )  # the option's, as in `causal_ids`, for clients that do not move it
        return Strings(prefix, space + probe.first + probe.suffix, space + probe.second + probe.suffix)
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
