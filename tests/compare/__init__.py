"""The two-sided comparison on real QEMUs."""
