"""The built-in guest and what is needed to run it, for demo, tests and bench."""
