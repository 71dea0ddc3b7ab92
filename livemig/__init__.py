"""livemig moves a running QEMU virtual machine to another QEMU by talking QMP to both."""
