"""Names of DNNs, devices and variants as names of files: one rule, both ways.

Letters of ASCII, digits and ``_ . - ~ + = , @ ( )`` and spaces stay; everything else is written as in web addresses
(``/`` as ``%2F``), and so is a first dot, so that no name leaves its folder or hides in it.
"""

from urllib.parse import quote, unquote

SAFE = " +=,@()"


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
