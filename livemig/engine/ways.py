"""Which way memory takes between hosts, when the first one does not come about. Pure."""

from __future__ import annotations

import msgspec

from livemig.core.errors import LivemigError
from livemig.core.plan import Plan, Security
from livemig.core.report import Report


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """Which way memory takes between hosts, and whether there is another.

    Attributes:
        tunnelled: Whether it is the one through livemig's SSH.
        more: Whether another one may be tried after it.
    """

    tunnelled: bool = False
    more: bool = False

    def after(self, plan: Plan, taken: Security | None) -> bool:
        """Whether there is another way after the one that was taken; only where the user left that to livemig."""
        return self.more and plan.security is Security.AUTO and taken is Security.TLS


DIRECT = Ways()
"""The plan's own, and no other after it."""


class NeverConnectedError(LivemigError):
    """The two QEMUs did not come together; nothing of the guest was sent, and both are as before, or ended.

    Attributes:
        silent: Whether one of them fell silent in the handshake: another port may do.
        report: How the attempt ended: what is to be told when no other way comes about either.
    """

    def __init__(self, message: str, *, silent: bool, report: Report) -> None:
        super().__init__(message)
        self.silent = silent
        self.report = report
