"""argv to plan, events to screen, outcome to exit code."""
