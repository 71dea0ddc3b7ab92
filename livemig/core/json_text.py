"""Encodes what is told and kept as JSON, also texts that are no Unicode: a file's name may hold any byte. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()


def encoded(told: Any) -> bytes:
    r"""Returns it as one line of JSON, without the newline.

    A byte that is no UTF-8 is a lone surrogate in Python, of which JSON knows nothing: it is written out, as
    ``\\udcff``. What QEMU calls its files must never end a migration.
    """
    try:
        return _encoder.encode(told)
    except UnicodeEncodeError:
        return _encoder.encode(_readable(msgspec.to_builtins(told)))


def _readable(tree: Any) -> Any:
    if isinstance(tree, str):
        return tree.encode(errors="backslashreplace").decode()
    if isinstance(tree, dict):
        return {_readable(key): _readable(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_readable(each) for each in tree]
    return tree
