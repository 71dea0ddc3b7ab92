"""Pure drivers of the policy: replay of recorded traces, and migrations simulated page by page. No I/O in here."""
