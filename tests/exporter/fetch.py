#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fetch.py PLACE PATH: the status of GET PATH on stderr, the body on stdout."""
import http.client
import socket
import sys
from urllib.parse import urlsplit

place, path = sys.argv[1:]
if place.startswith("unix:"):
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(place[len("unix:"):])
else:
    connection = http.client.HTTPConnection(urlsplit(place).netloc, timeout=30)
connection.request("GET", path)
response = connection.getresponse()
sys.stdout.write(response.read().decode())
print(response.status, response.getheader("Content-Type"), file=sys.stderr)
