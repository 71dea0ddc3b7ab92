"""Fixtures that more than one folder of tests uses."""

from tests.engine.fixtures import pair

__all__ = ["pair"]
