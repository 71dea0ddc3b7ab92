"""One QEMU process as seen over QMP."""
