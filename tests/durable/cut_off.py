# SPDX-License-Identifier: Apache-2.0
"""Cuts a mounted file system off: FS_IOC_SHUTDOWN without a flush of its log.  cut_off.py DIRECTORY"""
import fcntl
import os
import struct
import sys

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, uint32)
NOLOGFLUSH = 2

directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
