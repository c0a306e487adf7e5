"""The one place that knows which id a sentinel has (`<extra_id_0>`, `<extra_id_1>`, ...).

mT5's vocabulary holds the pieces `▁<extra_id_i>`; tokenizer classes may append `<extra_id_i>` as well, with ids past the
trained rows. T5 holds `<extra_id_i>`. So the piece inside the vocabulary is preferred, and an id that the embedding does
not have is refused. ByT5 was pretrained with the last bytes as sentinels [Xue et al. 2022, 3.1], and its tokenizer's
`<extra_id_i>` were never seen.
"""

from dataclasses import dataclass
from typing import Any

from .errors import ValueshiftError

_BYTES, _BYTE_SENTINELS = 256, 100
_FORMS = ("▁<extra_id_{}>", "<extra_id_{}>")


@dataclass(frozen=True)
class Sentinels:
    """Ids of sentinels 0, 1, ... in order, and the text of each as a user would type it."""

    ids: tuple[int, ...]
    needs_space: bool
    """True where the sentinel is the piece `▁<extra_id_i>`: as text it is only recognised after whitespace."""

    @property
    def text(self) -> str:
        """How sentinel 0 is written in a string."""
        return "<extra_id_0>"


def resolve_sentinels(tokenizer: Any, rows: int | None = None) -> Sentinels:
    """The sentinels of a Hugging Face tokenizer.

    Args:
        tokenizer: fast or slow tokenizer.
        rows: number of rows of the model's input embedding; ids from there on are refused. None skips that check.

    Raises:
        ValueshiftError: the tokenizer has no sentinel inside the embedding.
    """
    if type(tokenizer).__name__.startswith("ByT5"):
        last = tokenizer.offset + _BYTES - 1
        return Sentinels(tuple(range(last, last - _BYTE_SENTINELS, -1)), needs_space=False)
    outside = None
    for form in _FORMS:
        ids: list[int] = []
        while (token := _known(tokenizer, form.format(len(ids)))) is not None and (rows is None or token < rows):
            ids.append(token)
        if ids:
            return Sentinels(tuple(ids), needs_space=form is _FORMS[0])
        outside = outside if token is None else token
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if outside is not None:
        raise ValueshiftError(
            f"the tokenizer of {name} has <extra_id_0> as id {outside}, but the embedding has {rows} rows; "
            f"load the tokenizer that belongs to the model (extra_ids=0 for mT5)"
        )
    raise ValueshiftError(
        f"the tokenizer of {name} has no sentinel <extra_id_0>; cloze probes need an encoder-decoder model that was "
        f"pretrained with span corruption, such as mT5, umT5 or T5"
    )


def _known(tokenizer: Any, piece: str) -> int | None:
    token = tokenizer.convert_tokens_to_ids(piece)
    return None if token is None or token == tokenizer.unk_token_id else int(token)
