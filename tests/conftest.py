"""Fixtures that more than one folder of tests uses."""

from tests.engine.fixtures import either_pair, pair, waiting_pair

__all__ = ["either_pair", "pair", "waiting_pair"]
