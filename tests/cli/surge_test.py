#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A surge against workers that are too few: nothing is lost, the publisher is never blocked, `shmqctl
scale` asks for a number of workers, and with so many the backlog is gone when it said.

Short by default; with SHMQ_LONG=1 10,000 messages/s for 60 s against workers of 500/s each, and the time
has to be right within 20 %. The short one allows for a busy machine.

usage: surge_test.py SHMQCTL
"""
import fcntl
import json
import os
import subprocess
import sys
import time

SHMQCTL = os.path.abspath(sys.argv[1])
LONG = os.environ.get("SHMQ_LONG") == "1"
RATE, SECONDS = (10_000, 60) if LONG else (2_000, 3)
WORKER_RATE = 500 if LONG else 100
FIRST_WORKERS = 4
DRAIN_SECONDS = 60 if LONG else 5
TOLERANCE = 0.2 if LONG else 0.6
MESSAGE_BYTES = 64  # with the newline
TICK = 0.01

os.environ["SHMQ_NAMESPACE"] = f"surge{os.getpid()}"


def ctl(*words):
    done = subprocess.run([SHMQCTL, *words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"shmqctl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Worker:
    """A consumer whose messages are taken out of its pipe at a worker's pace. The pipe is small: what
    is in it counts as done."""

    def __init__(self):
        self.process = subprocess.Popen(
            [SHMQCTL, "consume", "q", "--group", "g", "--follow"], stdout=subprocess.PIPE)
        self.fd = self.process.stdout.fileno()
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.fd, False)
        self.since = time.monotonic()
        self.taken = 0
        self.rest = b""

    def work(self, seen):
        now = time.monotonic()
        due = int((now - self.since) * WORKER_RATE) - self.taken
        if due <= 0:
            return
        try:
            data = os.read(self.fd, min(due, 4096) * MESSAGE_BYTES)
        except BlockingIOError:
            data = b""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        seen.extend(int(line) for line in lines)
        self.taken += len(lines)
        if len(lines) < due // 2:  # nothing to do: the time is lost, not saved up
            self.since, self.taken = now, 0


def main():
    ctl("queue", "create", "q", "--capacity", "1048576" if LONG else "16384", "--group", "g",
        "--arena", "256MiB" if LONG else "16MiB")
    seen = []
    workers = [Worker() for _ in range(FIRST_WORKERS)]

    def run_until(condition):
        while not condition():
            started = time.monotonic()
            for worker in workers:
                worker.work(seen)
            time.sleep(max(0.0, TICK - (time.monotonic() - started)))

    total = RATE * SECONDS
    feeder = subprocess.Popen(["seq", "-f", f"%0{MESSAGE_BYTES - 1}.0f", "0", str(total - 1)],
                              stdout=subprocess.PIPE)
    started = time.monotonic()
    publisher = subprocess.Popen([SHMQCTL, "publish", "q", "--rate", str(RATE)], stdin=feeder.stdout)
    run_until(lambda: publisher.poll() is not None)
    took = time.monotonic() - started
    assert publisher.returncode == 0
    print(f"{total} messages published in {took:.1f} s, {len(seen)} done meanwhile")
    assert took < SECONDS * 1.2 + 1, "the publisher was blocked"

    scale = subprocess.Popen([SHMQCTL, "-o", "json", "scale", "q", "g", "--target-drain",
                              f"{DRAIN_SECONDS}s"], stdout=subprocess.PIPE, text=True)
    run_until(lambda: scale.poll() is not None)
    advice = json.loads(scale.stdout.read())
    print(f"scale: {advice['wanted']} workers: {advice['why']}")
    right = (total - len(seen)) / DRAIN_SECONDS / WORKER_RATE
    print(f"right would be {right:.1f}")
    assert abs(advice["wanted"] - right) <= max(1, right * TOLERANCE), "not the right number"

    workers.extend(Worker() for _ in range(advice["wanted"] - len(workers)))
    started = time.monotonic()
    run_until(lambda: len(seen) >= total)
    took = time.monotonic() - started
    predicted = advice["drain_seconds"]
    print(f"drained in {took:.1f} s, predicted {predicted:.1f} s ({took / predicted - 1:+.0%})")
    assert sorted(seen) == list(range(total)), "lost, or twice"
    assert abs(took / predicted - 1) <= TOLERANCE, "not when it said"
    for worker in workers:
        worker.process.terminate()
        worker.process.wait()


try:
    main()
finally:
    subprocess.run([SHMQCTL, "queue", "rm", "q", "--yes"], capture_output=True)
