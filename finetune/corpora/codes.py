"""Language codes and names of the releases -> ISO 639-1."""

from ...core.languages import LANGUAGES

_ISO_639_3 = {
    "ro": ("ron",),
    "el": ("ell",),
    "ur": ("urd",),
    "fa": ("fas", "pes"),
    "tl": ("tgl",),
    "id": ("ind",),
    "de": ("deu",),
    "ms": ("msa", "zsm"),
    "bn": ("ben",),
    "sr": ("srp",),
    "tr": ("tur",),
    "vi": ("vie",),
    "ko": ("kor",),
    "en": ("eng",),
    "hi": ("hin",),
    "ru": ("rus",),
}
_CODES = (
    {code: code for code in LANGUAGES}
    | {other: code for code, others in _ISO_639_3.items() for other in others}
    | {language.english.lower(): code for code, language in LANGUAGES.items()}
    | {"farsi": "fa"}
)


def code_of(name: str) -> str | None:
    """The ISO 639-1 code of one of the project's languages, or None.

    Args:
        name: ISO 639-1 or 639-3 code, with or without a script (`pes_Arab`), or English name.
    """
    return _CODES.get(name.partition("_")[0].lower())
