"""The only loops: they observe, ask the policy, and act."""
