"""Measures livemig on the machine at hand: ``python -m bench``; docs/bench.md explains it."""
