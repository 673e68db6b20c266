# SPDX-License-Identifier: Apache-2.0
"""top_screen.py SHMQCTL: keys and screen of `shmqctl top` on a pseudo-terminal, with the queue orders and
its groups billing and audit in the namespace."""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios

shmqctl = sys.argv[1]
environment = dict(os.environ, TERM="xterm", LC_ALL="C")
checks = 0


class Terminal:
    """What the program writes, as it comes; each wait is for something to appear, without a limit but
    the test's own."""

    def __init__(self, *arguments):
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self.before = termios.tcgetattr(other)
        self.other = other
        self.process = subprocess.Popen([shmqctl, "top", "--interval", "50ms", *arguments], stdin=other,
                                        stdout=other, stderr=other, env=environment, start_new_session=True)
        self.main, self.text = main, ""

    def await_text(self, pattern):
        global checks
        checks += 1
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end():]
                return
            if self.process.poll() is not None:
                sys.exit(f"ended with {self.process.returncode} before {pattern!r}: {self.text[-500:]!r}")
            ready, _, _ = select.select([self.main], [], [], 1)
            if ready:
                self.text += os.read(self.main, 65536).decode(errors="replace")

    def press(self, keys):
        os.write(self.main, keys.encode())

    def end(self, code):
        global checks
        checks += 1
        while self.process.poll() is None:
            ready, _, _ = select.select([self.main], [], [], 0.1)
            if ready:
                os.read(self.main, 65536)
        if self.process.returncode != code:
            sys.exit(f"ended with {self.process.returncode}, not {code}")
        if termios.tcgetattr(self.other) != self.before:
            sys.exit("the terminal is not as it was")
        os.close(self.main)
        os.close(self.other)


top = Terminal()
top.await_text("READYv")
top.await_text("audit")
top.press(">")  # the next column
top.await_text("IN FLIGHTv")
top.press("r")
top.await_text(r"\^")
top.press("/bill")
top.await_text("bill_|l_")
top.press("\n")
publisher = subprocess.Popen([shmqctl, "publish", "orders"], stdin=subprocess.PIPE, env=environment)
top.press("\n")  # who is there
top.await_text("orders / billing")
top.await_text("shmqctl publish")
publisher.stdin.close()
publisher.wait()
top.press("\x1b")
top.await_text("Enter")
top.press("q")
top.end(0)

top = Terminal("--filter", "nothing-has-this-name")
top.await_text("no queue or group holds that")
top.process.terminate()
top.end(143)

environment["TERM"] = "no-such-terminal"
top = Terminal()
top.await_text(r"TERM.*--batch|terminal 'no-such-terminal'")
top.end(1)
print(f"{checks} checks")
