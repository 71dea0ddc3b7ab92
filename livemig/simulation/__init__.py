"""Pure drivers of the policy: replay of recorded traces. No I/O in here."""
