"""``python -m tests.faults``."""

from __future__ import annotations

from tests.faults.campaign import main

main()
