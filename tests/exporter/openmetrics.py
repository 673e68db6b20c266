#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads OpenMetrics text with the strict parser of prometheus_client.

  openmetrics.py check FILE                     parses it; fails if it is not OpenMetrics
  openmetrics.py value FILE NAME LABEL=VALUE…   prints the sample, or none
  openmetrics.py agree FILE STAT.json…          compares with what shmqctl -o json stat says
"""
import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def read(path):
    with open(path, encoding="utf-8") as file:
        families = list(text_string_to_metric_families(file.read()))
    samples = {}
    for family in families:
        if family.name.startswith("shmq") and not family.documentation:
            sys.exit(f"{family.name} has no help")
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if key in samples:
                sys.exit(f"{key} is there twice")
            if not set(sample.labels) <= {"queue", "group", "state", "cause", "version", "le"}:
                sys.exit(f"unexpected label in {key}")
            samples[key] = sample.value
    if not samples:
        sys.exit("no samples")
    return samples


def agree(samples, paths):
    compared = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            stat = json.load(file)
        queue = stat["queue"]

        def same(name, expected, **labels):
            nonlocal compared
            compared += 1
            got = samples.get((name, frozenset({"queue": queue, **labels}.items())))
            if got != expected:
                sys.exit(f"{name} {labels} of {queue}: {got}, stat says {expected}")

        same("shmq_queue_up", 1)
        same("shmq_messages_published_total", stat["stats"]["published_total"])
        for group in stat["groups"]:
            name = group["name"]
            for state in ("ready", "in_flight", "delayed", "dead"):
                same("shmq_queue_messages", group[state], group=name, state=state)
            for total in ("acked", "dead_lettered", "dropped"):
                same(f"shmq_messages_{total}_total", group[f"{total}_total"], group=name)
            for cause, count in group["redelivered_total"].items():
                same("shmq_messages_redelivered_total", count, group=name, cause=cause)
            consumers = sum(samples[("shmq_consumers", frozenset(
                {"queue": queue, "group": name, "state": state}.items()))]
                for state in ("busy", "idle", "standing_by"))
            compared += 1
            if consumers != group["consumers"]:
                sys.exit(f"consumers of {queue} {name}: {consumers}, not {group['consumers']}")
    print(f"{compared} figures agree")
    return compared > 0


def main():
    command, path, *rest = sys.argv[1:]
    samples = read(path)
    if command == "value":
        labels = frozenset(tuple(label.split("=", 1)) for label in rest[1:])
        value = samples.get((rest[0], labels))
        print("none" if value is None else f"{value:g}")
    elif command == "agree" and not agree(samples, rest):
        sys.exit("nothing was compared")


main()
