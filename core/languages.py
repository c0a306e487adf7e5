"""The languages of the study, their scripts, and the countries whose people speak them (paper, section 3)."""

from dataclasses import dataclass

from .errors import ValueshiftError


@dataclass(frozen=True)
class Language:
    """A language: ISO 639-1 code, names, Unicode script names, default survey country (ISO 3166-1 alpha-3)."""

    code: str
    english: str
    native: str
    scripts: tuple[str, ...]
    country: str
    right_to_left: bool = False


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language("ro", "Romanian", "română", ("LATIN",), "ROU"),
        Language("el", "Greek", "ελληνικά", ("GREEK",), "GRC"),
        Language("ur", "Urdu", "اردو", ("ARABIC",), "PAK", right_to_left=True),
        Language("fa", "Persian", "فارسی", ("ARABIC",), "IRN", right_to_left=True),
        Language("tl", "Tagalog", "Tagalog", ("LATIN",), "PHL"),
        Language("id", "Indonesian", "Bahasa Indonesia", ("LATIN",), "IDN"),
        Language("de", "German", "Deutsch", ("LATIN",), "DEU"),
        Language("ms", "Malay", "Bahasa Melayu", ("LATIN",), "MYS"),
        Language("bn", "Bengali", "বাংলা", ("BENGALI",), "BGD"),
        Language("sr", "Serbian", "српски", ("CYRILLIC", "LATIN"), "SRB"),
        Language("tr", "Turkish", "Türkçe", ("LATIN",), "TUR"),
        Language("vi", "Vietnamese", "Tiếng Việt", ("LATIN",), "VNM"),
        Language("ko", "Korean", "한국어", ("HANGUL",), "KOR"),
        Language("en", "English", "English", ("LATIN",), "USA"),
        Language("hi", "Hindi", "हिन्दी", ("DEVANAGARI",), "IND"),
        Language("ru", "Russian", "русский", ("CYRILLIC",), "RUS"),
    )
}

TEST_LANGUAGES = ("ro", "el", "ur", "fa", "tl", "id", "de", "ms", "bn", "sr", "tr", "vi", "ko")
"""The paper's 13 test languages."""

FINETUNING_LANGUAGES = ("fa", "ko", "hi", "ru")
"""The paper's fine-tuning languages."""


def language(code: str) -> Language:
    """The language of an ISO 639-1 code.

    Raises:
        ValueshiftError: the code is not one of the known languages.
    """
    try:
        return LANGUAGES[code]
    except KeyError:
        raise ValueshiftError(f"unknown language '{code}'; known are {', '.join(LANGUAGES)}") from None


def parse_languages(text: str | None, available: tuple[str, ...]) -> tuple[str, ...]:
    """The comma-separated codes of `text` in the order given, or all of `available` when `text` is None or empty.

    Raises:
        ValueshiftError: a code is not in `available`.
    """
    chosen = tuple(dict.fromkeys(code.strip() for code in (text or "").split(",") if code.strip()))
    if unknown := [code for code in chosen if code not in available]:
        raise ValueshiftError(f"unknown language '{unknown[0]}'; available here are {', '.join(available) or 'none'}")
    return chosen or available
