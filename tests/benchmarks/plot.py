# SPDX-License-Identifier: MIT
"""A run as a picture: a bar for each row's ratio, drawn from 1, where both are equal, on a scale
where twice as good and half as good are equally far; a mark where the goal is; below, what has a
limit."""
import math
from xml.sax.saxutils import escape

WIDTH = 1060
LABELS_END = 325  # right edge of the rows' names
PLOT_LEFT, PLOT_RIGHT = 340, 825
AGAINST = PLOT_RIGHT + 130
ROW = 19
BAR = 11
TOP = 96
FONT = "font-family='DejaVu Sans, Verdana, Helvetica, Arial, sans-serif'"
INK, FAINT, GRID = "#1f2328", "#6b7280", "#e3e6ea"
COLOURS = {"met": "#2f6fb3", "missed": "#d9822b", "no goal": "#a9b1bb"}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def verdict(figure):
    if "goal" not in figure:
        return "no goal"
    return "met" if figure["met"] else "missed"


def main_figure(row):
    """The ratio the row is about: the one with a goal, else that to the best peer, else any."""
    ratios = [f for f in row["figures"] if not f["is-cost"]]
    ratios.sort(key=lambda f: ("goal" not in f, f["name"] != "best peer"))
    return ratios[0] if ratios else None


def native_figure(row):
    return next((f for f in row["figures"] if f["name"] == "native"), None)


class Scale:
    """Logarithmic, wide enough for every value, with 1 in it."""

    def __init__(self, values):
        values = [v for v in values if 0 < v < math.inf] + [0.5, 2]
        self.least = max(t for t in TICKS if t <= min(*values) or t == TICKS[0])
        self.most = min(t for t in TICKS if t >= max(*values) or t == TICKS[-1])
        self.ticks = [t for t in TICKS if self.least <= t <= self.most]

    def x(self, value):
        inside = min(max(value, self.least), self.most)
        share = math.log(inside / self.least) / math.log(self.most / self.least)
        return PLOT_LEFT + share * (PLOT_RIGHT - PLOT_LEFT)


def text(x, y, words, size=12, anchor="start", colour=INK, weight="normal"):
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' "
            f"fill='{colour}' font-weight='{weight}'>{escape(words)}</text>")


def line(x1, y1, x2, y2, colour, width=1.0):
    return (f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' "
            f"stroke-width='{width}'/>")


def bar(x1, x2, middle, colour):
    left, width = min(x1, x2), max(abs(x2 - x1), 1)
    return (f"<rect class='bar' x='{left:.1f}' y='{middle - BAR / 2:.1f}' width='{width:.1f}' "
            f"height='{BAR}' fill='{colour}'/>")


def goal_mark(x, middle):
    return line(x, middle - ROW / 2 + 1, x, middle + ROW / 2 - 1, INK, 2.5)


def native_mark(x, middle):
    return (f"<circle cx='{x:.1f}' cy='{middle:.1f}' r='3.6' fill='white' stroke='{INK}' "
            f"stroke-width='1.2'/>")


def legend(y):
    parts, x = [], PLOT_LEFT
    for word, label in (("met", "goal met"), ("missed", "goal missed"), ("no goal", "no goal")):
        parts += [bar(x, x + 18, y - 4, COLOURS[word]), text(x + 23, y, label, 11)]
        x += 105
    parts += [goal_mark(x + 4, y - 4), text(x + 12, y, "goal", 11), native_mark(x + 72, y - 4),
              text(x + 81, y, "against the raw file itself", 11)]
    return parts


def grid(scale, top, bottom):
    parts = []
    for tick in scale.ticks:
        x = scale.x(tick)
        strong = tick == 1
        parts += [line(x, top, x, bottom, FAINT if strong else GRID, 1.2 if strong else 1),
                  text(x, top - 6, f"{tick:g}x", 10.5, "middle", FAINT)]
    return parts


def short(name):
    return {"qemu-storage-daemon": "storage daemon", "native": "raw file"}.get(name, name)


def ratio_row(name, row, middle, scale):
    parts = [text(LABELS_END, middle + 4, name, 12, "end")]
    figure = main_figure(row)
    if figure is None:
        reason = "nothing to compare with" if row["state"] == "measured" else row["state"]
        return parts + [text(scale.x(1) + 6, middle + 4, reason, 11, colour=FAINT)]
    parts.append(bar(scale.x(1), scale.x(figure["value"]), middle, COLOURS[verdict(figure)]))
    if "goal" in figure:
        parts.append(goal_mark(scale.x(figure["goal"]), middle))
    native = native_figure(row)
    if native is not None and native is not figure:
        parts.append(native_mark(scale.x(native["value"]), middle))
    value = f"{figure['value']:.2f}x" + (f" of {figure['goal']:g}x" if "goal" in figure else "")
    parts.append(text(PLOT_RIGHT + 12, middle + 4, value, 12,
                      weight="bold" if "goal" in figure else "normal"))
    parts.append(text(AGAINST, middle + 4, short(figure["against"]), 11, colour=FAINT))
    return parts


def is_ratio_row(row):
    """All but those that have nothing but a limit."""
    return not any(f["name"] == "itself" for f in row["figures"]) and "itself" not in row["goals"]


def ratio_rows(run, scale):
    """The parts of the upper picture, and where it ends."""
    parts, y, where = [], TOP, None
    for name, row in run["rows"].items():
        if not is_ratio_row(row):
            continue
        if row["where"] != where:
            where = row["where"]
            y += 8
            parts.append(text(14, y + ROW / 2 + 4, where, 11, colour=FAINT))
        parts += ratio_row(name, row, y + ROW / 2, scale)
        y += ROW
    return parts, y


def limits(run):
    for name, row in run["rows"].items():
        for figure in row["figures"]:
            if figure["is-cost"] and "goal" in figure:
                label = name if figure["name"] == "itself" else f"{name}, {figure['name']}"
                yield label, figure


def limit_rows(run, y):
    rows = list(limits(run))
    if not rows:
        return [], y
    y += 44
    parts = [text(14, y, "Costs, as a share of the limit", 13, weight="bold")]
    most = max(2.0, *(f["value"] / f["goal"] for _, f in rows))
    unit = (PLOT_RIGHT - PLOT_LEFT) / most
    y += 24
    bottom = y + ROW * len(rows)
    for percent in range(0, int(most * 100) + 1, 50):
        x = PLOT_LEFT + percent / 100 * unit
        parts += [line(x, y, x, bottom, GRID),
                  text(x, y - 6, f"{percent} %", 10.5, "middle", FAINT)]
    for label, figure in rows:
        middle = y + ROW / 2
        parts += [text(LABELS_END, middle + 4, label, 12, "end"),
                  bar(PLOT_LEFT, PLOT_LEFT + figure["value"] / figure["goal"] * unit, middle,
                      COLOURS[verdict(figure)]),
                  goal_mark(PLOT_LEFT + unit, middle),
                  text(PLOT_RIGHT + 12, middle + 4, f"{figure['value']:.3g} of {figure['goal']:g} "
                                                    f"{figure['unit']}", 12, weight="bold")]
        y += ROW
    return parts, bottom


def draw(run):
    """The SVG."""
    values = []
    for row in run["rows"].values():
        for figure in row["figures"]:
            if not figure["is-cost"]:
                values += [figure["value"], figure.get("goal", 1)]
    scale = Scale(values)
    rows, bottom = ratio_rows(run, scale)
    below, end = limit_rows(run, bottom)
    machine, settings = run["machine"], run["settings"]
    title = "bgfs: how many times as fast as the best of the others"
    head = [text(14, 28, title, 17, weight="bold"),
            text(14, 48, f"bgfs {machine['bgfs']}, {machine['cores']} cores "
                         f"({machine['processor']}), Linux {machine['kernel']}; {run['time']}; "
                         f"median of {settings['rounds']} rounds of {settings['seconds']:g} s", 11,
                 colour=FAINT),
            text(AGAINST, TOP - 2, "against", 10.5, colour=FAINT)]
    parts = [*head, *legend(70), *grid(scale, TOP + 4, bottom + 4), *rows, *below]
    height = end + 24
    return (f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0f}' "
            f"viewBox='0 0 {WIDTH} {height:.0f}' {FONT}>\n"
            f"<rect width='{WIDTH}' height='{height:.0f}' fill='white'/>\n"
            + "\n".join(parts) + "\n</svg>\n")
