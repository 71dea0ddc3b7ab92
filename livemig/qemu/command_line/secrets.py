"""Takes the secrets out of a command line before anybody sees it. Pure.

An id of a secret (``password-secret=sec0``) is none, nor is a switch (``password=on``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from livemig.core.errors import CommandLineError
from livemig.qemu.command_line.config_file import options_of
from livemig.qemu.command_line.options import Option, parse
from livemig.qemu.command_line.properties import IMPLIED_KEYS, Properties, escaped, parse_properties

REDACTED = "<redacted>"

_SECRET_KEYS = frozenset({"password", "passwd", "passphrase", "cookie", "token", "pin"})
_SWITCHES = frozenset({"on", "off", "yes", "no", "true", "false"})
_IN_TEXT = (
    re.compile(r"(?i)(?:\w+://)[^/\s:@,%]*[:%]([^/\s@]+)@"),  # scheme://user:PASSWORD@host, iscsi has % for the colon
    re.compile(r"(?i)(?:^rbd:|:)[^:]*?\bkey=([^:,\s]+)"),
    re.compile(r"(?i)\b[\w.-]*(?:password|passwd|passphrase|token|api[-_]?key)=(?!on\b|off\b)([^\s,:&\"']+)"),
    re.compile(r"(?i)io\.systemd\.credential(?:\.binary)?:[^=]+=(.+)"),
    re.compile(r"(?i)\"[\w.-]*(?:password|passwd|passphrase|cookie|token)\"\s*:\s*\"([^\"]+)\""),
)


def redacted(argv: Sequence[str]) -> list[str]:
    """Returns a command line, program first, with each secret replaced; it has as many arguments as before."""
    found = secrets_in(argv)
    return [redacted_text(argument, found) for argument in argv]


def redacted_text(text: str, secrets: Sequence[str]) -> str:
    """Returns a text with known secrets replaced: what QEMU writes quotes its command line."""
    for secret in secrets:
        for form in (escaped(secret), json.dumps(secret)[1:-1], secret):
            text = text.replace(form, REDACTED)
    return text


def secrets_in(argv: Sequence[str]) -> tuple[str, ...]:
    """Returns the secrets in a command line, program first, the longest first; also in one that can't be read."""
    found: set[str] = set()
    try:
        options: Sequence[Option] = parse(argv[1:])
    except CommandLineError:
        options = [Option(flag.lstrip("-"), value, flag) for flag, value in pairwise(["", *argv[1:]])]
    for each in options:
        found.update(_secrets_of(each))
    return tuple(sorted((secret for secret in found if secret), key=lambda text: (-len(text), text)))


def secrets_in_config(text: str, path: str) -> tuple[str, ...]:
    """Returns the secrets in a config file.

    Raises:
        CommandLineError: When it can't be read.
    """
    return tuple(secret for each in options_of(text, path) for secret in _secrets_of(each))


def _secrets_of(each: Option) -> Iterator[str]:
    if each.value is None:
        return
    yield from _in_text(each.value)
    if each.name not in IMPLIED_KEYS:
        return
    try:
        properties = parse_properties(each.value, IMPLIED_KEYS[each.name])
    except CommandLineError:
        return
    secret_keys = _SECRET_KEYS | _further_secret_keys(each, properties)
    for key, value in properties.items():
        if key.rpartition(".")[2] not in secret_keys:
            yield from _in_text(value)
        elif value.lower() not in _SWITCHES:
            yield value


def _further_secret_keys(each: Option, properties: Properties) -> frozenset[str]:
    if each.name == "object" and (properties.get("qom-type") or "").startswith("secret"):
        return frozenset({"data"})
    if each.name == "fw_cfg" and (properties.get("name") or "").startswith("opt/io.systemd.credentials/"):
        return frozenset({"string"})
    return frozenset()


def _in_text(text: str) -> Iterator[str]:
    for pattern in _IN_TEXT:
        for found in pattern.finditer(text):
            yield found[1]
