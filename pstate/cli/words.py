"""What the library says of its options, said as the command line says it. Only for messages, so imported for them."""

from __future__ import annotations

import re

#: What a Python program would write, and what stands for it here. The first that fit are replaced first.
_WORDS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"or open it with PersistedState\.open\(path, read_only=True\)", "or only look at it, with: pstate get"),
        (r"Opening it without read_only begins", "A change with pstate set begins"),
        (r"[Oo]pen it without read_only", "Use another command"),
        (r"was opened read_only", "was opened to look at it only"),
        (
            r"Open with locking=filelock\.SoftFileLock\(.*?\), which needs none, or with another lock object",
            "Let a Python program change it that opens it with another lock object, such as filelock.SoftFileLock",
        ),
        (r"""locking=["'](\w+)["']""", r"--locking \1"),
        (r"""durability=["'](\w+)["']""", r"--durability \1"),
        (
            r"; use sys\.set_int_max_str_digits\(\) to increase the limit",
            "; the environment variable PYTHONINTMAXSTRDIGITS lifts it",
        ),
        (r"pass a longer lock_timeout", "give a longer --lock-timeout"),
        (r"\block_timeout\b", "--lock-timeout"),
    )
]


def in_our_words(message: str) -> str:
    """*message*, an error of the library or of a command, with options as they are written on a command line."""
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    return message
