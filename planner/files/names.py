r"""Names of DNNs, devices and variants as names of files and as cells of tables: one rule each, both ways.

As names of files, letters of ASCII, digits and ``_ . - ~ + = , @ ( )`` and spaces stay; everything else is written as
in web addresses (``/`` as ``%2F``), and so is a first dot, so that no name leaves its folder or hides in it.

As cells of CSV files, names that a spreadsheet would take for formulas have an apostrophe before them, and characters
that cannot be seen (a terminal would obey some) stand as ``\x1b``, ``\u202e`` or ``\U000e0001``, a backslash as two.
"""

import re
from urllib.parse import quote, unquote

SAFE = " +=,@()"
FORMULA = ("=", "+", "-", "@")  # how formulas begin, in one spreadsheet or another
ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def file_name(name: str) -> str:
    """Return the file name that stands for a name.

    >>> file_name("mobilenet_v2"), file_name("org/model"), file_name("../../x")
    ('mobilenet_v2', 'org%2Fmodel', '%2E.%2F..%2Fx')
    """
    text = quote(name, safe=SAFE)
    return "%2E" + text[1:] if text.startswith(".") else text


def name_of(text: str) -> str:
    """Return the name that a file name stands for.

    >>> name_of(file_name("../été [1]"))
    '../été [1]'
    """
    return unquote(text)


def cell(value: object) -> object:
    r"""Return what is written for a value: a text that is no number and begins as a formula gets an apostrophe.

    >>> cell("=cmd"), cell("-0.5"), cell("net"), cell(-1)
    ("'=cmd", '-0.5', 'net', -1)
    >>> print(cell("a\x07b\nc"))
    a\x07b\x0ac
    """
    if not isinstance(value, str):
        return value
    plain = value.isprintable() and "\\" not in value
    text = value if plain else "".join(map(_seen, value))
    return "'" + text if text.lstrip("'").startswith(FORMULA) and not _is_number(text) else text


def value_of(written: object) -> object:
    r"""Return the value that a cell stands for.

    >>> value_of("'=cmd"), value_of(cell("'=cmd")), value_of("'tis"), value_of(cell("a\x07b\\c")) == "a\x07b\\c"
    ('=cmd', "'=cmd", "'tis", True)
    """
    if not isinstance(written, str):
        return written
    text = written[1:] if written.startswith("'") and written.lstrip("'").startswith(FORMULA) else written
    return ESCAPED.sub(_unseen, text)


def printable(text: str) -> str:
    r"""Return a text on one line, control characters written out: a name of a model's may hold any.

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _seen(character: str) -> str:
    r"""Return a character as it stands in a cell."""
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unseen(found: re.Match[str]) -> str:
    """Return the character that an escape in a cell stands for; an escape that stands for none, as it is."""
    text = found[1]
    if text == "\\":
        return text
    code = int(text[1:], 16)
    return chr(code) if code < 0x110000 else found[0]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
