"""Documents as programs: their blocks of commands, run in order by one shell, and what they show, compared with what is said.

A block marked `sh` is a script: it has to end without an error, and its output is its own business. One marked `console` shows commands
behind `$ ` (continued behind `> `) and below each what it prints, all of it; `…` stands for the rest of a line, and alone on a line for any lines.
No command fails, but the last of a console after a comment `<!-- fails: CODE -->`. Moments, uids, keys, sizes,
durations, ids of processes and numbers of six digits or more are any of their kind. A comment `<!-- not run: WHY -->` before a block leaves it out."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from .shell import Failed, check

TOP = Path(__file__).resolve().parents[3]
MARK = "\x01"
# What differs from run to run: its look in a document, and what may stand for it.
KINDS = (
    (r"[0-9A-Z]{5}(?:-[0-9A-Z]{5}){7}", r"[0-9A-Z]{5}(?:-[0-9A-Z]{5}){7}"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    (r"[0-9a-f]{64}", r"[0-9a-f]{64}"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"),
    (r"[A-Z][a-z]{2} +\d+ \d\d:\d\d", r"[A-Z][a-z]{2} +\d+ \d\d:\d\d"),
    (r"\d+(?:\.\d+)? (?:bytes|B|[KMGT]i?B)(?:/s)?\b", r"\d+(?:\.\d+)? (?:bytes|B|[KMGT]i?B)(?:/s)?"),
    (r"\d+(?:\.\d+)? (?:ms|s|min|h)\b", r"\d+(?:\.\d+)? (?:ms|s|min|h|d)"),
    (r"/dev/loop\d+", r"/dev/loop\d+"),
    (r"\b\d{6,}\b", r"\d+"),
    (r"\[\d+\]", r"\[\d+\]"),
    (r"\b\d+\.\d+\b", r"\d+\.\d+"),
    (r"…", r".*"),
    (r"\s+", r"\s+"),
)


@dataclass
class Step:
    """One command, or one script, with the lines that it is to print; None when they are not shown."""

    text: str
    line: int
    shown: list | None = None
    code: int = 0


@dataclass
class Section:
    """What stands below one heading: steps, and the reasons why blocks are left out."""

    title: str
    steps: list = field(default_factory=list)
    left_out: list = field(default_factory=list)


def read(name):
    """The sections of a document of the project, by their titles, in order."""
    sections = {"": Section("")}
    current, kind, reason, code, block, began = sections[""], "", None, 0, None, 0
    for number, line in enumerate((TOP / name).read_text().splitlines(), 1):
        if block is not None:
            if line.rstrip() == "```":
                _add(current, kind, block, began, reason)
                if code:
                    check(current.steps[-1].shown is not None, f"{name}:{number}: only a console fails")
                    current.steps[-1].code = code
                block, reason, code = None, None, 0
            else:
                block.append(line)
        elif line.startswith("```"):
            kind, block, began = line[3:].strip(), [], number
        elif line.startswith("#"):
            check(line.lstrip("# ") not in sections, f"{name}: two sections are called {line}")
            current = sections[line.lstrip("# ")] = Section(line.lstrip("# "))
        elif line.startswith("<!-- not run:"):
            reason = line.removeprefix("<!-- not run:").removesuffix("-->").strip()
            check(len(reason) > 10 and line.endswith("-->"), f"{name}:{number}: say why it is not run")
        elif found := re.fullmatch(r"<!-- fails: (\d+) -->", line):
            code = int(found[1])
        elif line.strip():
            check(reason is None and not code, f"{name}:{number}: a comment stands directly before its block")
            check(not re.match(r" {4}(\$ |backyfs |cp |mount |echo )", line), f"{name}:{number}: commands stand between ``` so that they are run")
    check(block is None, f"{name}: a block does not end")
    return sections


def _add(section, kind, lines, number, reason):
    if kind not in ("sh", "console"):
        check(kind in ("text", "toml", "json", "yaml", "fstab"), f"line {number}: a block of commands is marked sh or console, not {kind!r}")
        return
    if reason:
        section.left_out.append(reason)
        return
    if kind == "sh":
        section.steps.append(Step("\n".join(lines), number))
        return
    check(lines and lines[0].startswith("$ "), f"line {number}: a console begins with a command")
    for at, line in enumerate(lines, number + 1):
        if line.startswith("$ "):
            section.steps.append(Step(line[2:], at, []))
        elif line.startswith("> "):
            section.steps[-1].text += "\n" + line[2:]
        else:
            section.steps[-1].shown.append(line)


def matches(shown, said):
    """Whether what is shown stands for what was said, line by line."""
    parts = []
    for line in _trimmed(shown):
        parts.append(r"(?:[^\n]*\n)*?" if line.strip() == "…" else _pattern(line) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in _trimmed(said))) is not None


def _trimmed(lines):
    lines = [line.rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _pattern(line):
    """A regular expression for one shown line."""
    whole = "|".join(f"({look})" for look, _ in KINDS)
    out, end = "", 0
    for found in re.finditer(whole, line.rstrip()):
        index = next(i for i in range(len(KINDS)) if found.group(i + 1) is not None)
        out += re.escape(line[end : found.start()]) + KINDS[index][1].replace(r"\s", r"[ \t]")
        end = found.end()
    return out + re.escape(line[end:].rstrip())


class Shell:
    """Runs steps in one shell on a machine: directory and variables stay from one to the next, also between calls of `play`."""

    def __init__(self, house, seconds=150, stand_in=None):
        # Texts of a document, and what stands in for them here.
        self.stand_in = stand_in or {}
        self.house, self.seconds, self.state = house, seconds, "/run/documents-state"
        # What the last call of `play` heard.
        self.said = ""

    def play(self, name, steps):
        """Runs them all; the first one that does otherwise than its document says is an error that names its line."""
        text = f"[ ! -e {self.state} ] || . {self.state}\n"
        for step in steps:
            text += f"printf '\\n{MARK}BEGIN %d\\n' {step.line}\n"
            command = step.text
            for theirs, ours in self.stand_in.items():
                command = command.replace(theirs, ours)
            text += f"{'set -e' if step.shown is None else 'set +e'}\neval {shlex.quote(command)}\n"
            text += f"printf '\\n{MARK}END %d\\n' $?\n"
        text += f"{{ export -p; declare -f; printf 'cd %q\\n' \"$PWD\"; }} > {self.state}\n"
        output = "/run/documents-output"
        self.house.at("/run/documents-script").write_text(text)
        try:
            self.house.inside("bash", "-c", f"exec bash /run/documents-script > {output} 2>&1 < /dev/null", ok=False, timeout=self.seconds)
        finally:
            self.said = self.house.at(output).read_text(errors="replace")
            print(self.said[-1500:] if self.said.count("END") < len(steps) else "")
        for step in steps:
            self._judge(name, step, self.said)

    def _judge(self, name, step, said):
        _, begun, rest = said.partition(f"\n{MARK}BEGIN {step.line}\n")
        text, ended, rest = rest.partition(f"\n{MARK}END ")
        where = f"{name}:{step.line}: {step.text}\n--- said:\n{text.partition(MARK)[0]}"
        check(begun and ended, f"{where}--- and ended there")
        code = int(rest.split("\n", 1)[0])
        check("panicked" not in text, where)
        if code != step.code:
            raise Failed(f"{where}--- exit code {code}")
        if step.shown is None:
            return
        lines = text.split("\n")
        if not matches(step.shown, lines):
            raise Failed(f"{where}--- shown:\n" + "\n".join(step.shown))
