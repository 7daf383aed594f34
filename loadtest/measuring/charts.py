"""Charts of the reports as SVG, by matplotlib."""

import sys
from contextlib import contextmanager

from . import TOOLS
from .tables import number


@contextmanager
def _axes(path, title, height=4.5):
    # Here and not above: scripts/setup may install it after this module is imported.
    sys.path.append(str(TOOLS / "matplotlib"))
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.style.context(["seaborn-v0_8-whitegrid", "seaborn-v0_8-colorblind"]):
        figure, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
        axes.set_title(title)
        yield axes
        figure.legend(loc="outside lower center", ncols=4)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        pyplot.close(figure)


def bars(path, title, unit, rows, log=False):
    """`rows`: by name, the median, least and most of each series by its name; None for what was not measured."""
    series = list(next(iter(rows.values())))
    thickness = 0.8 / len(series)
    with _axes(path, title, 1.5 + 0.3 * len(series) * len(rows)) as axes:
        for index, name in enumerate(series):
            known = [(place, row[name]) for place, row in enumerate(rows.values()) if row[name]]
            places = [place + (index - (len(series) - 1) / 2) * thickness for place, _ in known]
            summaries = [summary for _, summary in known]
            medians = [median for median, *_ in summaries]
            drawn = axes.barh(places, medians, thickness, xerr=_errors(summaries), label=name)
            axes.bar_label(drawn, map(number, medians), padding=4)
        axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.margins(x=0.12)
        if log:
            axes.set_xscale("log")


def lines(path, title, x_label, y_label, series, ticks, log_x, log_y=False):
    """`series`: by name, points of x, median, least and most. `ticks`: x by its name."""
    with _axes(path, title) as axes:
        for name, points in series.items():
            xs, *summaries = zip(*points)
            summaries = list(zip(*summaries))
            medians = [median for median, *_ in summaries]
            axes.errorbar(xs, medians, yerr=_errors(summaries), marker="o", label=name)
            for x, median in zip(xs, medians):
                axes.annotate(number(median), (x, median), xytext=(0, 7), textcoords="offset points", ha="center")
        if log_x:
            axes.set_xscale("log")
        axes.set_xticks(list(ticks.values()), ticks, minor=False)
        axes.set_xticks([], minor=True)
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set(xlabel=x_label, ylabel=y_label)


def _errors(summaries):
    """How far the least and the most are from the median."""
    return [[median - least for median, least, _ in summaries], [most - median for median, _, most in summaries]]
