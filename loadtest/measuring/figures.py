"""The figures of one curve, along its axis."""

from . import chart
from .chart import number
from .report import spread, table


class Figures:
    def __init__(self, name, results, points, charts):
        self.name = name
        self.results = results
        self.charts = charts
        # In the order in which the curve names them.
        self.xs = list(dict.fromkeys(point.x for point in points))
        self.series = list(dict.fromkeys(point.series for point in points))

    def at(self, x, measure, series=""):
        """Median, least and most."""
        return self.results.summary((self.name, x, series), measure)

    def line(self, measure, series=""):
        known = [(x, self.at(x, measure, series)) for x in self.xs]
        return [(x, *summary) for x, summary in known if summary]

    def ends(self, measure, series=""):
        """At both ends of the axis, as text."""
        both = [self.at(x, measure, series) for x in (self.xs[0], self.xs[-1])]
        return [number(summary[0]) if summary else "?" for summary in both]

    def growth(self, measure, series=""):
        """The last value by the first one, as text."""
        first, last = [self.at(x, measure, series) for x in (self.xs[0], self.xs[-1])]
        return f"{last[0] / first[0]:.2f}" if first and last else "?"

    def table(self, axis, measures, show=str):
        rows = []
        for series in self.series:
            for x in self.xs:
                name = ", ".join(filter(None, [show(x), series]))
                rows.append([name, *(spread(self.at(x, measure, series)) for measure in measures.values())])
        return table([axis, *measures], rows)

    def lines_chart(self, suffix, texts, lines, **options):
        """`texts`: title, subtitle, names of both axes. Gives the image for the page."""
        known = [(name, points) for name, points in lines.items() if points]
        if not known:
            return "None of its runs counts."
        chart.lines(self.charts / f"{self.name}{suffix}.svg", *texts, known, **options)
        return self._image(suffix, texts[0])

    def bars_chart(self, texts, series, rows):
        """`texts`: title, subtitle, unit."""
        chart.bars(self.charts / f"{self.name}.svg", *texts, series, rows)
        return self._image("", texts[0])

    def _image(self, suffix, title):
        return f"![{title}](charts/{self.name}{suffix}.svg)"
