"""Names of DNNs, devices and variants as names of files and as cells of tables: one rule each, both ways.

As names of files, letters of ASCII, digits and ``_ . - ~ + = , @ ( )`` and spaces stay; everything else is written as
in web addresses (``/`` as ``%2F``), and so is a first dot, so that no name leaves its folder or hides in it.

As cells of CSV files, names that a spreadsheet would take for formulas have an apostrophe before them.
"""

from urllib.parse import quote, unquote

SAFE = " +=,@()"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how formulas begin, in one spreadsheet or another


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
    """Return what is written for a value: a text that is no number and begins as a formula gets an apostrophe.

    >>> cell("=cmd"), cell("-0.5"), cell("net"), cell(-1)
    ("'=cmd", '-0.5', 'net', -1)
    """
    if isinstance(value, str) and value.lstrip("'").startswith(FORMULA) and not _is_number(value):
        return "'" + value
    return value


def value_of(written: object) -> object:
    """Return the value that a cell stands for.

    >>> value_of("'=cmd"), value_of(cell("'=cmd")), value_of("'tis")
    ('=cmd', "'=cmd", "'tis")
    """
    if isinstance(written, str) and written.startswith("'") and written.lstrip("'").startswith(FORMULA):
        return written[1:]
    return written


def printable(text: str) -> str:
    r"""Return a text on one line, control characters written out: a name of a model's may hold any.

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
