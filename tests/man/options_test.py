#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""options_test.py MAN-DIRECTORY PROGRAM…: a program's page and its --help name the same options and
commands, for each command of its own, in both directions; and each page has no option in its text that
the program does not know.

A page's macros are read, not its rendering: `.Fl` says what is an option, `.It Nm Cm WORDS` what is a
command, and the items and text up to the next command belong to it.
"""
import os
import re
import subprocess
import sys

MACROS = {"Ar", "Cm", "Op", "Oo", "Oc", "Ns", "Pq", "Ql", "Dq", "Ic", "Nm", "Ev", "Pa", "Fl", "Em", "Xr", "Li"}
PUNCTUATION = {",", "|", ".", ":", ";", "(", ")", "...", "[", "]"}


def flags_of(line):
    """The options that a line of mdoc names: "-n", "--count"."""
    flags, taking = [], False
    for word in line.replace("\\&", "").split():
        if word in MACROS:
            taking = word == "Fl"
        elif taking and word not in PUNCTUATION:
            flags.append("-" + word.replace("\\-", "-").replace("\\", ""))
    return flags


class Page:
    """commands: words of the command -> the options of its block; "" is the program itself."""

    def __init__(self, text):
        self.commands = {"": set()}
        self.everywhere = set()
        current, in_example = "", False
        for line in text.splitlines():
            if line.startswith(".Bd"):
                in_example = True
            elif line.startswith(".Ed"):
                in_example = False
            if in_example or line.startswith('.\\"'):
                continue
            if line.startswith((".Ss", ".Sh")):
                current = ""
            item = re.match(r"\.It Nm Cm (.*)", line) or re.match(r"\.It Nm Cm (.*)", line.replace("Xo Nm", "Nm"))
            names = []
            if item:
                # "queue create Ar Q …"; "queue rm Ar Q …": words up to the first macro.
                for word in item.group(1).split():
                    if word in MACROS:
                        break
                    names.append(word)
                current = " ".join(names)
                self.commands.setdefault(current, set())
            elif line.startswith(".It Cm ") and not current:
                for word in line[7:].split():
                    if word in MACROS:
                        break
                    names.append(word)
                current = " ".join(names)
                self.commands.setdefault(current, set())
            if line.startswith(".") and " " in line:
                found = set(flags_of(line[1:]))
                self.everywhere |= found
                if not line.startswith(".Op") or current:
                    self.commands[current] |= found


class Help:
    """Of one command: alias sets of its options, and the names of its commands."""

    def __init__(self, program, words):
        text = subprocess.run([program, *words, "--help"], capture_output=True, text=True, check=True).stdout
        self.options, self.commands, section = [], [], ""
        for line in text.splitlines():
            if re.match(r"\S.*:$", line):
                section = line
            match = re.match(r"  (-\S+)", line)
            if match:
                self.options.append(frozenset(name for name in match.group(1).split(",")))
            elif section.lower().startswith("subcommands"):
                match = re.match(r"  ([a-z]\S*)", line)
                if match:
                    self.commands.append(match.group(1))


def collect(program, words=()):
    """words of each command -> its Help."""
    found = {" ".join(words): Help(program, words)}
    for name in found[" ".join(words)].commands:
        found.update(collect(program, (*words, name)))
    return found


def compare(name, page, helps):
    """The differences, one sentence each; and how many options and commands were looked at."""
    wrong, looked = [], 0
    known = set().union(*(alias for each in helps.values() for alias in each.options))
    leaves = {words for words, each in helps.items() if not each.commands} - {""}
    for words in sorted(leaves | (set(page.commands) - {""})):
        looked += 1
        if words not in page.commands:
            wrong.append(f"{name}: no '.It Nm Cm {words}' on the page")
        elif words not in leaves:
            wrong.append(f"{name}: '{words}' is on the page, and no command of the program")
    own = {option for option in helps[""].options}
    for words, each in sorted(helps.items()):
        place = f"{name} {words}".strip()
        documented = page.commands.get(words, set()) if words in leaves or not words else page.everywhere
        for aliases in each.options:
            looked += 1
            if words and (aliases in own or "--help" in aliases):
                continue
            if not aliases & documented:
                wrong.append(f"{place}: {'/'.join(sorted(aliases))} is in its --help, and not on the page")
            for alias in aliases - page.everywhere:
                wrong.append(f"{place}: {alias} is nowhere on the page")
    for words in sorted(page.commands):
        if words and words not in leaves:
            continue
        have = set().union(*(alias for alias in helps[words].options), *own)
        for flag in sorted(page.commands[words]):
            looked += 1
            if flag not in (have if words else known):
                wrong.append(f"{name} {words}: {flag} is on the page, and not in its --help")
    return wrong, looked


def main():
    directory, programs = sys.argv[1], sys.argv[2:]
    failures, looked = 0, 0
    for program in programs:
        name = os.path.basename(program)
        path = next(p for p in (f"{directory}/{name}.{s}" for s in (1, 8)) if os.path.exists(p))
        with open(path, encoding="utf-8") as file:
            text = file.read()
        helps = collect(program)
        wrong, count = compare(name, Page(text), helps)
        looked += count
        for sentence in wrong:
            print("FAILED:", sentence)
        failures += len(wrong)
        # It can fail: the page without one of its options, and with one that there is not.
        item = next(line for line in text.splitlines() if line.startswith(".It Fl ") and "namespace" not in line)
        for other in (text.replace(item, ".It", 1).replace(flags_of(item)[0].lstrip("-"), "xyzzy"),
                      text.replace(item, item + "\n.Fl \\-no-such-option", 1)):
            looked += 1
            if len(compare(name, Page(other), helps)[0]) <= len(wrong):
                print(f"FAILED: {name}: a page that is wrong is not noticed ({item})")
                failures += 1
    print(f"man.options: {looked} options and commands of {len(programs)} programs, {failures} failed")
    return 1 if failures or looked < 100 else 0


sys.exit(main())
