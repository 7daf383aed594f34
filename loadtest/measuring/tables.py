"""Tables of figures in Markdown."""

import math

from .results import DISTURBED


def number(value):
    """Short, with three figures that matter and separated thousands."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def spread(summary, digits=None):
    """Median with least and most."""
    if summary is None:
        return "–"

    def show(value):
        return number(value) if digits is None or value < 0.1 else f"{value:.{digits}f}"

    median, least, most = map(show, summary)
    return median if least == most else f"{median} ({least}–{most})"


def ratio(summary):
    return spread(summary, 2)


def table(columns, rows):
    """The first column is text, the others are figures."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine(description):
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    return (
        f"{description['cpu']}, {description['memory']}, {description['system']}. Hookgate {description['commit']}. "
        f"{versions}. {description['rounds']} rounds, {description['seconds']} seconds a run."
    )


def warning(results):
    """A paragraph for every report, if some of its runs were disturbed."""
    disturbed = list(results.disturbed())
    if not disturbed:
        return []
    count = sum(count for _, count, _ in disturbed)
    runs = sum(map(len, results.runs.values()))
    text = f"**The machine was not quiet**: in {count} of {runs} runs something else used more than {DISTURBED} cores. "
    text += "They count only where there are no others."
    names = [(", ".join(map(str, filter(None, key))), count, whole) for key, count, whole in disturbed]
    only_disturbed = [name for name, count, whole in names if count == whole]
    if only_disturbed:
        text += f" So these figures mean little: {'; '.join(only_disturbed)}."
    return [text]


def faults(results):
    lines = [f"- {' '.join(map(str, key))}, round {round_}: {fault}" for key, round_, fault in results.faults()]
    return ["## Runs that do not count", "\n".join(lines)] if lines else []


def write(path, sections):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(sections) + "\n")
