"""Charts as SVG, by hand: on a card of their own colour, so that they are readable on light and dark pages."""

import math
from html import escape

WIDTH = 760
_CARD, _FRAME, _INK, _FAINT, _GRID = "#ffffff", "#d0d7de", "#1f2328", "#59636e", "#e6e9ed"
# Told apart by people with any kind of colour vision (Okabe and Ito).
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"]
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


class _Svg:
    def __init__(self, height):
        self.height = height
        self.parts = []

    def text(self, x, y, text, size=13, anchor="start", colour=_INK, weight="normal", turn=None):
        turned = f" transform='rotate({turn} {x:.1f} {y:.1f})'" if turn else ""
        self.parts.append(
            f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' fill='{colour}' "
            f"font-weight='{weight}'{turned}>{escape(str(text))}</text>"
        )

    def line(self, x1, y1, x2, y2, colour=_GRID, width=1):
        self.parts.append(
            f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='{width}'/>"
        )

    def rect(self, x, y, width, height, colour, radius=0):
        self.parts.append(
            f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{height:.1f}' rx='{radius}' "
            f"fill='{colour}'/>"
        )

    def circle(self, x, y, colour, radius=4.5):
        self.parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' fill='{colour}'/>")

    def path(self, points, colour):
        data = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
        self.parts.append(f"<path d='{data}' fill='none' stroke='{colour}' stroke-width='2.5'/>")

    def legend(self, names, y, x=24):
        for index, name in enumerate(names):
            self.rect(x, y - 10, 12, 12, COLOURS[index], 2)
            self.text(x + 18, y, name, 12)
            x += 18 + 7 * len(name) + 22

    def write(self, path, title, subtitle):
        self.text(24, 34, title, 17, weight="600")
        self.text(24, 54, subtitle, 12, colour=_FAINT)
        card = (
            f"<rect x='0.5' y='0.5' width='{WIDTH - 1}' height='{self.height - 1}' rx='8' fill='{_CARD}' "
            f"stroke='{_FRAME}'/>"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {self.height}' width='{WIDTH}' "
            f"height='{self.height}' role='img' {_FONT}>\n<title>{escape(title)}</title>\n{card}\n"
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def number(value):
    """Short, with three figures that matter and thousands told apart."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Scale:
    """From values to places on an axis."""

    def __init__(self, values, begin, end, is_log=False):
        self.is_log = is_log
        self.begin, self.end = begin, end
        values = [value for value in values if value] or [1]
        if is_log:
            self.low = 10 ** math.floor(math.log10(min(values)) + 1e-9)
            self.high = 10 ** math.ceil(math.log10(max(values)) - 1e-9)
            if self.low == self.high:
                self.high *= 10
        else:
            self.low = 0
            self.step = _round_step(max(values))
            self.high = self.step * math.ceil(max(values) / self.step - 1e-9)

    def place(self, value):
        if self.is_log:
            share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            share = value / self.high
        return self.begin + share * (self.end - self.begin)

    def ticks(self):
        if self.is_log:
            return [10.0**power for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]
        return [index * self.step for index in range(round(self.high / self.step) + 1)]


def _round_step(largest):
    """1, 2 or 5 times a power of ten, for four to nine steps."""
    power = 10 ** math.floor(math.log10(largest / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 9 >= largest)


def bars(path, title, subtitle, unit, series, rows):
    """Rows are (name, [(value, low, high) or None for each of the series])."""
    left, right, top, thickness = 230, 90, 110, 18
    row_height = len(series) * (thickness + 3) + 16
    bottom = top + len(rows) * row_height
    svg = _Svg(bottom + 56)
    scale = _Scale([cell[2] for _, cells in rows for cell in cells if cell], left, WIDTH - right)
    for tick in scale.ticks():
        svg.line(scale.place(tick), top - 8, scale.place(tick), bottom)
        svg.text(scale.place(tick), bottom + 18, number(tick), 11, "middle", _FAINT)
    svg.text((left + WIDTH - right) / 2, bottom + 40, unit, 12, "middle", _FAINT)
    svg.legend(series, 84)
    for index, (name, cells) in enumerate(rows):
        y = top + index * row_height
        svg.text(left - 10, y + (row_height - 16) / 2 + 4, name, 13, "end")
        _grouped_bars(svg, scale, cells, y, thickness)
    svg.line(left, top - 8, left, bottom, _FAINT)
    svg.write(path, title, subtitle)


def _grouped_bars(svg, scale, cells, y, thickness):
    for index, cell in enumerate(cells):
        bar_y = y + index * (thickness + 3)
        if cell is None:
            svg.text(scale.place(0) + 8, bar_y + 14, "–", 12, colour=_FAINT)
            continue
        value, low, high = cell
        middle = bar_y + thickness / 2
        svg.rect(scale.place(0), bar_y, scale.place(value) - scale.place(0), thickness, COLOURS[index], 2)
        svg.line(scale.place(low), middle, scale.place(high), middle, _INK, 1.5)
        svg.text(max(scale.place(value), scale.place(high)) + 8, bar_y + 14, number(value), 12)


def dots(path, title, subtitle, unit, series, rows):
    """As bars, each value a dot on one logarithmic line; for values that differ by orders of magnitude."""
    left, right, top, row_height = 230, 40, 112, 40
    bottom = top + len(rows) * row_height
    svg = _Svg(bottom + 50)
    scale = _Scale([cell[0] for _, cells in rows for cell in cells if cell], left, WIDTH - right, is_log=True)
    for tick in scale.ticks():
        svg.line(scale.place(tick), top - 12, scale.place(tick), bottom)
        svg.text(scale.place(tick), bottom + 16, number(tick), 11, "middle", _FAINT)
    svg.text((left + WIDTH - right) / 2, bottom + 36, unit, 12, "middle", _FAINT)
    svg.legend(series, 84)
    for index, (name, cells) in enumerate(rows):
        y = top + index * row_height + 14
        svg.text(left - 10, y + 4, name, 13, "end")
        places = [scale.place(cell[0]) for cell in cells if cell]
        if not places:
            svg.text(left + 8, y + 4, "–", 12, colour=_FAINT)
            continue
        svg.line(min(places), y, max(places), y, _FAINT, 1.5)
        for place, cell in enumerate(cells):
            if cell:
                svg.circle(scale.place(cell[0]), y, COLOURS[place])
                # Above and below in turn, so that neighbours leave each other room.
                svg.text(scale.place(cell[0]), y + (17 if place % 2 else -9), number(cell[0]), 11, "middle", _FAINT)
    svg.write(path, title, subtitle)


def lines(path, title, subtitle, x_label, y_label, series, log_x=True, log_y=False, x_ticks=None):
    """Series are (name, [(x, value, low, high)]); `x_ticks` gives places of the axis names: {x: name}."""
    left, right, top, bottom = 84, 40, 110, 330
    svg = _Svg(bottom + 60)
    points = [point for _, all_points in series for point in all_points]
    places = x_ticks or {x: number(x) for x, *_ in points}
    if log_x:
        begin, end = min(places), max(places)
        x_scale = _Scale([begin, end], left + 20, WIDTH - right - 20, is_log=True)
        x_scale.low, x_scale.high = begin, end
    else:
        x_scale = _Scale(places, left + 20, WIDTH - right - 20)
        x_scale.high = max(places)
    y_scale = _Scale(
        [point[3] for point in points] + ([point[2] for point in points] if log_y else []), bottom, top, log_y
    )
    for tick in y_scale.ticks():
        svg.line(left, y_scale.place(tick), WIDTH - right, y_scale.place(tick))
        svg.text(left - 8, y_scale.place(tick) + 4, number(tick), 11, "end", _FAINT)
    for x, name in places.items():
        svg.line(x_scale.place(x), bottom, x_scale.place(x), bottom + 5, _FAINT)
        svg.text(x_scale.place(x), bottom + 19, name, 11, "middle", _FAINT)
    svg.line(left, bottom, WIDTH - right, bottom, _FAINT)
    svg.text((left + WIDTH - right) / 2, bottom + 42, x_label, 12, "middle", _FAINT)
    svg.text(22, (top + bottom) / 2, y_label, 12, "middle", _FAINT, turn=-90)
    svg.legend([name for name, _ in series], 84)
    for colour, (_, all_points) in zip(COLOURS, series):
        svg.path([(x_scale.place(x), y_scale.place(value)) for x, value, *_ in all_points], colour)
        for x, value, low, high in all_points:
            svg.line(x_scale.place(x), y_scale.place(low), x_scale.place(x), y_scale.place(high), colour, 1.5)
            svg.circle(x_scale.place(x), y_scale.place(value), colour)
    for x in places:
        values = sorted((value for at, value, *_ in points if at == x), reverse=True)
        _label(svg, x_scale.place(x), [(y_scale.place(value), value) for value in values])
    svg.write(path, title, subtitle)


def _label(svg, x, points):
    """Numbers above their points, or below where there is no room; where there is none at all the axis has to do."""
    taken = []
    for y, value in points:
        room = [at for at in (y - 10, y + 19) if all(abs(at - other) >= 13 for other in taken)]
        if room:
            svg.text(x, room[0], number(value), 11, "middle")
            taken.append(room[0])
