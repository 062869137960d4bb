"""Text of others, made safe to record and to show: passwords, control characters, formulas, names."""

from __future__ import annotations

import re
import unicodedata
from typing import Any
from urllib.parse import unquote_plus

from benchbox.errors import RequestError

#: What takes a password's place.
MASK = "***"

# user:password@ of a URL, also where the colon or the @ is percent-encoded; as far as the last @ before the query.
_USER = re.compile(r"(://[^\s:/@?]*?(?::|%3a))([^?\n]*)(@|%40)", re.IGNORECASE)
_USER_WITH_QUESTION_MARK = re.compile(r"(://[^\s:/@?]*?(?::|%3a))([^\n]*)(@|%40)", re.IGNORECASE)
# A URL that ends within its password: what stands there is no port.
_NO_HOST = re.compile(r"(://[^\s:/@?]*(?::|%3a))(?!\d{1,5}(?:[/?\s'\"]|$))(?!\*\*\*)[^\s/@?'\"]+", re.IGNORECASE)
# user:password@host without a scheme.
# Lengths are bounded, and a name begins where none of its characters stand: a text without end is read once.
_BARE = re.compile(r"(?<![\w/:.])([\w.+%-]{1,200}:)(?!//)(?!\*\*\*)[^\s@]{1,500}(@[\w.-])")
_PAIR = re.compile(r"(?<![\w.%-])([\w.%-]+)=([^&\s'\"]*)")
_SECRET = re.compile(r"passw|passphrase|^pass$|pwd|secret|credential|api_?key|(^|[._-])token$", re.IGNORECASE)

#: Control characters but line feed and tab, and what is invisible or turns the direction of writing.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
#: Signs that tables and sentences are made of.
_SPELT = str.maketrans(
    {
        "∞": "inf",
        "ε": "eps",
        "α": "alpha",
        "σ": "sigma",
        "×": "x",
        "≈": "~",
        "≤": "<=",
        "≥": ">=",
        "±": "+-",
        "−": "-",
    }
    | {"–": "-", "—": "-", "─": "-", "│": "|", "→": "->", "·": ".", "†": "+", "‡": "++", "§": "#", "✓": "ok"}
    | {"“": '"', "”": '"', "‘": "'", "’": "'"}
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")


def a(word: str) -> str:
    """A word with its article: a tuple, an OrderedDict."""
    return f"{'an' if word[:1] in tuple('AEIOUaeio') else 'a'} {word}"


def counted(number: int, noun: str) -> str:
    """So many of something: 1 cell, 2 cells."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def spelt(text: str) -> str:
    """A text in ASCII, for who has nothing else: signs by what they look like, letters without accents."""
    plain = unicodedata.normalize("NFKD", text.translate(_SPELT))
    return "".join(c if c.isascii() else "" if unicodedata.combining(c) else f"\\u{ord(c):04x}" for c in plain)


def masked(text: str) -> str:
    """A URL, an argument or a message without the passwords in it.

    Where a URL is malformed, rather too much is masked than too little.
    """
    if "@" not in text and "=" not in text and ":" not in text and "%" not in text:
        return text
    text = _USER.sub(rf"\1{MASK}\3", text)
    if "?" in text:
        # The @ may stand behind a question mark that belongs to the password; a masked one stays as it is.
        text = _USER_WITH_QUESTION_MARK.sub(
            lambda m: m.group() if m.group(2).startswith(f"{MASK}@") else f"{m.group(1)}{MASK}{m.group(3)}", text
        )
    text = _NO_HOST.sub(rf"\1{MASK}", text)
    text = _BARE.sub(rf"\1{MASK}\2", text)
    return _PAIR.sub(_masked_pair, text)


def masked_record(record: Any) -> Any:
    """JSON with the passwords in its texts masked."""
    if isinstance(record, str):
        return masked(record)
    if isinstance(record, dict):
        return {key: masked_record(value) for key, value in record.items()}
    return [masked_record(part) for part in record] if isinstance(record, list | tuple) else record


def printable(text: str) -> str:
    r"""A text that does nothing to a terminal or a page but stand there: ESC becomes `\x1b`, U+202E `\u202e`.

    Line feeds and tabs stay.
    """
    return UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)


def harmless(text: str) -> str:
    """A text of others on one line, where it does nothing but stand."""
    return printable(" ".join(text.split()))


def spreadsheet_text(value: object) -> object:
    """A value for a CSV file: text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def check_name(kind: str, name: str) -> str:
    """The name itself, if it is one.

    Args:
        kind: What it names, in the user's words ("defence", "data set").
        name: Up to 80 letters, digits, and `.`, `_`, `+`, `-` between them.

    Raises:
        RequestError: It is none.
    """
    if not _NAME.fullmatch(name):
        shown = ascii(name if len(name) <= 100 else f"{name[:100]}...")
        raise RequestError(
            f"{shown} is no name for a {kind}; use up to 80 letters, digits and . _ + -, a letter or digit first"
        )
    return name


def check_words(kind: str, words: str) -> str:
    """The words themselves, if they can stand in a line: where something came from, who made it.

    Raises:
        RequestError: They hold control characters, or more than 200 characters, or none.
    """
    if not words.strip() or len(words) > 200 or words != " ".join(printable(words).splitlines()):
        raise RequestError(f"{words[:100]!a} is no {kind}; use 1 to 200 characters in one line, no control codes")
    return words


def _masked_pair(found: re.Match[str]) -> str:
    name, value = found.groups()
    return f"{name}={MASK}" if value and _SECRET.search(unquote_plus(name)) else found.group()
