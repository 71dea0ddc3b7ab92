"""The small Linux guest: Debian's cloud kernel, busybox and livemig's own workload, for sockets, disks and page cache.

`image` builds it, `records` knows what its workload sends, `guest` puts it on a host of the lab.
"""
