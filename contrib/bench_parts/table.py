"""The table at the end: what was measured, against whom, the limit, and whether it holds."""

from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """One line: a figure of backyfs, and per opponent its figure and the largest (or smallest) ratio allowed."""

    work: str
    value: float
    unit: str = "s"
    opponents: dict = field(default_factory=dict)
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    def verdicts(self):
        """(text, holds) for every limit of the row."""
        for name, (theirs, limit) in self.opponents.items():
            ratio = self.value / theirs if theirs else float("inf")
            text = f"{ratio:.2f} x {name} ({show(theirs, self.unit)})"
            yield (text, None) if limit is None else (f"{text}, limit {limit}", ratio <= limit)
        if self.at_most is not None:
            yield f"limit {show(self.at_most, self.unit)}", self.value <= self.at_most
        if self.at_least is not None:
            yield f"at least {show(self.at_least, self.unit)}", self.value >= self.at_least


def show(value, unit):
    """A figure with its unit."""
    return f"{value:.2f} {unit}" if unit in ("s", "ms") else f"{value:.1f} {unit}"


def middle(values):
    """Median, or NaN of nothing."""
    return median(values) if values else float("nan")


def render(rows, heading):
    """The table as text, and whether every limit held."""
    lines, held = [heading, ""], True
    width = max(len(r.work) for r in rows)
    for row in rows:
        verdicts = list(row.verdicts())
        judged = [ok for _, ok in verdicts if ok is not None]
        held &= all(judged)
        mark = "" if not judged else ("pass" if all(judged) else "FAIL")
        texts = "; ".join(text for text, _ in verdicts)
        lines.append(f"{row.work:<{width}}  {show(row.value, row.unit):>12}  {mark:<4}  {texts}{'  ' + row.note if row.note else ''}")
    return "\n".join(lines), held
