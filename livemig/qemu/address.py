"""Where a QMP monitor is: ``PATH``, ``unix:PATH``, ``tcp:HOST:PORT`` or ``ssh://[USER@]HOST[:PORT]/PATH``.

Reads text; opens nothing.
"""

import ipaddress
import re
from urllib.parse import quote, unquote

import msgspec

from livemig.core.errors import AddressError

_FORMS = "PATH, unix:PATH, tcp:HOST:PORT or ssh://[USER@]HOST[:PORT]/PATH"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PATH_LIMIT_BYTES = 107
"""Linux's bound on the path of a UNIX socket."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """How a host is reached by SSH; what is left out is decided by the user's own SSH configuration.

    Attributes:
        host: Its name in the user's SSH configuration, or a host name or IP address without brackets.
        user: The user there, or None.
        port: The port of its SSH, or None.
    """

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{user}{host}{port}"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor's address: either `path`, perhaps with `login`, or `host` and `port`.

    Attributes:
        path: Path of a UNIX socket, or None.
        host: Host name or IP address without brackets, or None.
        port: TCP port, or None.
        login: How the host is reached that `path` is on; None is this one.
    """

    path: str | None = None
    host: str | None = None
    port: int | None = None
    login: Login | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads one of the forms; an IPv6 host stands in brackets.

        Raises:
            AddressError: When it is none of these; the message says what would do.
        """
        if text.startswith("ssh://"):
            return _parse_ssh(text)
        scheme = _SCHEME.match(text)
        if scheme is not None:
            raise AddressError(f"{text!r} has an unknown form ({scheme[0]}): write {_FORMS}", address=text)
        if text.startswith("tcp:"):
            return _parse_tcp(text)
        path = text.removeprefix("unix:")
        if "," in path and ("server" in path or "wait" in path):
            hint = path.split(",", maxsplit=1)[0]
            raise AddressError(f"{text!r} carries options of QEMU's -qmp: write only its path, {hint!r}", address=text)
        return _parse_path(path, text)

    @property
    def is_on_its_host(self) -> bool:
        """Whether that QEMU runs on the host that livemig acts on for it: a ``tcp:`` address may lead elsewhere."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host or "").is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None and self.login is not None:
            return f"{self.login}{quote(self.path, errors='surrogateescape')}"
        if self.path is not None:
            return self.path if not self.path.startswith(("tcp:", "unix:")) else f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host
        return f"tcp:{host}:{self.port}"


def _parse_path(path: str, text: str) -> Address:
    if not path:
        raise AddressError(f"{text!r} names no socket: write {_FORMS}", address=text)
    if "\0" in path:
        raise AddressError(f"{text!r} has a NUL byte in its path", address=text)
    length_bytes = len(path.encode("utf-8", "surrogateescape"))
    if length_bytes > _PATH_LIMIT_BYTES:
        raise AddressError(
            f"{text!r} is {length_bytes} bytes long, and a UNIX socket's path at most {_PATH_LIMIT_BYTES}:"
            " use a shorter or relative path, or a symbolic link",
            address=text,
        )
    return Address(path=path)


def _parse_ssh(text: str) -> Address:
    authority, slash, path = text.removeprefix("ssh://").partition("/")
    user, at, place = authority.rpartition("@")
    if not slash or not path:
        raise AddressError(
            f"{text!r} names no socket: write ssh://[USER@]HOST[:PORT]/PATH, an absolute path", address=text
        )
    if path.startswith(("./", "../", "~")):
        raise AddressError(
            f"{text!r}: the path of an ssh:// address is absolute, as in ssh://HOST/run/vm.qmp", address=text
        )
    found = re.fullmatch(r"(\[[^\]]+\]|[^\[\]:\s]+)(?::(\d{1,5}))?", place)
    if found is None or found[1].startswith("-") or (at and not user) or ":" in user or user.startswith("-"):
        raise AddressError(f"{text!r} has no proper host: write ssh://[USER@]HOST[:PORT]/PATH", address=text)
    port = None if found[2] is None else int(found[2])
    if port is not None and not 1 <= port <= 65535:
        raise AddressError(f"{text!r}: a port is from 1 to 65535", address=text)
    login = Login(host=found[1].strip("[]"), user=unquote(user) or None, port=port)
    return msgspec.structs.replace(_parse_path(f"/{unquote(path, errors='surrogateescape')}", text), login=login)


def _parse_tcp(text: str) -> Address:
    host, colon, port_text = text.removeprefix("tcp:").rpartition(":")
    if not colon or not host:
        raise AddressError(f"{text!r} lacks a host or a port: write tcp:HOST:PORT", address=text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r}: write an IPv6 address in brackets, tcp:[HOST]:PORT", address=text)
    if not host or any(character.isspace() or character in "[]/,\0" for character in host):
        raise AddressError(f"{text!r} has no proper host: write tcp:HOST:PORT", address=text)
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise AddressError(f"{text!r} has no number as its port: write tcp:HOST:PORT", address=text)
    port = int(port_text)
    if not 1 <= port <= 65535:
        raise AddressError(f"{text!r}: a port is from 1 to 65535", address=text)
    return Address(host=host, port=port)
