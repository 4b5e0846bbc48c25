"""The words of the command line: its options in the place of Python's arguments, and how many of something."""

from __future__ import annotations

import re

# An option of ``dataflow.load`` -> how an error names it as a way out, and how it is called here.
IN_WORDS = {
    "allow_pickle": ("allow_pickle=True", "--allow-pickle"),
    "data_paths": ("data_paths=[...]", "--data-paths NAME,NAME"),
}
# Others that an error names, and that are no options here.
_IN_PYTHON = re.compile(
    r"\b(?:allow_external|allow_variable|columns|decode|max_bytes|n_features|verify)=(?:\[\.\.\.\]|[\w'\"]+)"
)


def in_words(text: str) -> str:
    """Name an option in the place of an argument that only code could give, or say that there is none.

    >>> in_words("pass allow_pickle=True if you trust it")
    'pass --allow-pickle if you trust it'
    >>> in_words("pass allow_variable=True if you trust it")
    'pass allow_variable=True (to dataflow.load, in Python) if you trust it'
    """
    for argument, option in IN_WORDS.values():
        text = text.replace(argument, option)
    return _IN_PYTHON.sub(r"\g<0> (to dataflow.load, in Python)", text)


def counted(number: int, what: str) -> str:
    """Say how many.

    >>> counted(1, "record"), counted(2000, "record")
    ('1 record', '2,000 records')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"
