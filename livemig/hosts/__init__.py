"""The machine under a QEMU."""
