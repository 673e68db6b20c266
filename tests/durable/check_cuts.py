# SPDX-License-Identifier: Apache-2.0
"""What was confirmed before each cut was delivered, and no seq had two payloads.

check_cuts.py HISTORY CUTS: HISTORY has printed-CUT-PRODUCER (line n: the seq of the producer's nth
message) and delivered-CUT-before, delivered-CUT-after (JSON lines of shmqctl consume).
"""
import glob
import json
import os
import sys

history, cuts = sys.argv[1], int(sys.argv[2])
payloads = {}  # seq -> payload, whoever told
failures = []
confirmed = checks = redelivered = 0


def fail(text):
    failures.append(text)
    if len(failures) <= 20:
        print("FAILED:", text)


def note(seq, payload, where):
    global checks
    checks += 1
    if payloads.setdefault(seq, payload) != payload:
        fail(f"{where}: seq {seq} is '{payload}', and was '{payloads[seq]}'")


def whole_lines(path):
    with open(path) as file:
        return [line[:-1] for line in file if line.endswith("\n")]


for cut in range(1, cuts + 1):
    delivered = set()
    for path in sorted(glob.glob(os.path.join(history, f"delivered-{cut}-*"))):
        last = -1
        for line in whole_lines(path):
            message = json.loads(line)
            seq = message["seq"]
            note(seq, message["payload"], os.path.basename(path))
            if seq <= last:
                fail(f"{os.path.basename(path)}: seq {seq} after {last}")
            last = seq
            redelivered += seq in delivered
            delivered.add(seq)
    printed = sorted(glob.glob(os.path.join(history, f"printed-{cut}-*")))
    if len(printed) != 4:
        fail(f"cut {cut}: {len(printed)} producers")
    for path in printed:
        producer = path.rsplit("-", 1)[1]
        last = -1
        for number, line in enumerate(whole_lines(path), 1):
            seq = int(line)
            confirmed += 1
            note(seq, f"cut{cut}-producer{producer}-{number}", os.path.basename(path))
            if seq not in delivered:
                fail(f"cut {cut}: seq {seq} was confirmed and is lost")
            if seq <= last:
                fail(f"{os.path.basename(path)}: seq {seq} after {last}")
            last = seq

print(f"realfs_test: {cuts} cuts, {confirmed} confirmed, {len(payloads)} delivered, "
      f"{redelivered} of them again, {checks} checks, {len(failures)} failed")
sys.exit(1 if failures or confirmed < cuts or checks == 0 else 0)
