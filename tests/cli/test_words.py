"""What an error advises, in the words of the command line."""

from __future__ import annotations

import pytest

from dataflow.cli.words import counted, in_words

PYTHON = " (to dataflow.load, in Python)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pass allow_pickle=True.", "pass --allow-pickle."),
        ("say data_paths=[...], of 'a'", "say --data-paths NAME,NAME, of 'a'"),
        ('read on with verify="off"', f'read on with verify="off"{PYTHON}'),
        ("read what is there with verify='off'.", f"read what is there with verify='off'{PYTHON}."),
        ("Pass max_bytes=1000000 if you trust it", f"Pass max_bytes=1000000{PYTHON} if you trust it"),
        ("the others with columns=[...]", f"the others with columns=[...]{PYTHON}"),
        ("no argument: verify, or x_verify=1", "no argument: verify, or x_verify=1"),
    ],
)
def test_an_argument_is_an_option_or_said_to_be_one_of_python(text, words):
    assert in_words(text) == words


def test_one_is_not_several():
    assert [counted(number, "fault") for number in (0, 1, 1234)] == ["0 faults", "1 fault", "1,234 faults"]
