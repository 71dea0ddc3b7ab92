"""A machine reached over SSH as a host. Nothing is installed there: a POSIX shell and QEMU are enough.

Imported only when an address names one: loading asyncssh takes a third of a second.
"""
