# SPDX-License-Identifier: MIT
"""What a run says: rows as they are measured, goals at the end, another run beside it."""
from . import figures


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def one_line(words, most=240):
    short = " ".join(words.split())
    return short if len(short) <= most else short[:most] + " ..."


def header(run):
    m, s = run["machine"], run["settings"]
    lines = [f"bgfs {m['bgfs']} on {m['cores']} cores ({m['processor']}), Linux {m['kernel']}, "
             f"FUSE over io_uring {m['fuse over io_uring']}",
             f"{s['rounds']} rounds of {s['seconds']:g} s a server, by turns, with fio {m['fio']}; "
             "median (least .. most)"]
    there = [f"{name} {version}" for name, version in run["programs"].items() if version]
    gone = [name for name, version in run["programs"].items() if not version]
    lines.append("compared with " + (", ".join(there) or "nobody"))
    if gone:
        lines.append("not installed: " + ", ".join(gone))
    return "\n".join(lines)


def figure_line(figure):
    name = figure["name"]
    if figure["is-cost"]:
        label = {"server CPU": "server CPU time per request", "itself": "the limit"}[name]
        value = f"{number(figure['value'])} {figure['unit']}"
        sign = "at most"
    else:
        label = "against " + figure["against"]
        label += {"best peer": ", the best peer", "best peer's CPU": ", in CPU time"}.get(name, "")
        value = f"{figure['value']:.2f}x"
        sign = "goal"
    line = f"    {label:<42}{value:>10}"
    if not figure["is-cost"]:
        line += f" ({figure['least']:.2f} .. {figure['most']:.2f})"
    if "goal" in figure:
        line = f"{line:<74}{sign} {figure['goal']:g}: {'met' if figure['met'] else 'MISSED'}"
    return line


def row_text(name, row):
    lines = [f"{name}: {row['title']} ({row['where']})"]
    if row["state"] != "measured":
        return "\n".join([*lines, f"    {row['state']}: {one_line(row['reason'])}"])
    for server, s in row["servers"].items():
        spread = f"({number(s['least'])} .. {number(s['most'])})"
        line = f"    {server:<21}{number(s['median']):>9} {row['unit']:<6}{spread:<22}"
        if "server-us" in s:
            line += (f"server {s['server-us']['median']:>6.1f} us, "
                     f"machine {s['machine-us']['median']:>6.1f} us")
        if s["detail"]:
            line += f" ({s['detail']})"
        lines.append(line.rstrip())
    if row["missing"]:
        lines.append("    without " + ", ".join(f"{k} ({v})" for k, v in row["missing"].items()))
    lines += [f"    FAILED, and left out: {k}: {one_line(v)}" for k, v in row["failed"].items()]
    lines += [figure_line(f) for f in row["figures"]]
    lines += [f"    goal for {goal}: not judged, nothing to compare with"
              for goal in row["unjudged"]]
    return "\n".join(lines)


def goals_table(run):
    """Every goal of the run on one line, and how many are met."""
    lines, met, missed, open_ = [], 0, 0, 0
    for name, row in run["rows"].items():
        for figure in row["figures"]:
            if "goal" not in figure:
                continue
            met, missed = met + figure["met"], missed + (not figure["met"])
            value, goal = f"{figure['value']:.2f}x", f"{figure['goal']:g}x"
            if figure["is-cost"]:
                value = f"{number(figure['value'])} {figure['unit']}"
                goal = f"<= {figure['goal']:g} {figure['unit']}"
            what = figure["against"] or figure["name"]
            lines.append(f"{name:<34}{what:<22}{value:>10}{goal:>12}  "
                         f"{'met' if figure['met'] else 'MISSED'}")
        for goal in row["unjudged"]:
            open_ += 1
            why = "nothing to compare with" if row["state"] == "measured" else row["state"]
            lines.append(f"{name:<34}{goal:<22}{'-':>10}{row['goals'][goal]:>11g}   {why}")
    dropped = sorted({name for row in run["rows"].values() for name in row["failed"]})
    if not lines:
        return "no row of this run has a goal"
    title = f"{'goals':<34}{'against':<22}{'found':>10}{'goal':>12}"
    lines.append(f"{met} met, {missed} missed, {open_} not judged")
    if dropped:
        lines.append("peers that failed in some row: " + ", ".join(dropped))
    return "\n".join([title, *lines])


def comparison(old, new):
    both, lone = figures.compare(old, new)
    lines = [f"{'compared with the run of ' + old['time']:<57}{'old':>10}{'new':>10}{'change':>9}"]
    for what in ("settings", "machine", "programs"):
        keys = [k for k in new[what] if old[what].get(k) != new[what][k]]
        lines += [f"  {what} differ: {k} was {old[what].get(k)}, is {new[what][k]}" for k in keys]
    for name, key, before, after, change in both:
        what = key if before["against"] == after["against"] else f"{key} (another one)"
        mark = "  differs" if figures.differs(change) else ""
        lines.append(f"{name:<34}{what:<23}{number(before['value']):>10}"
                     f"{number(after['value']):>10}{change:>+9.0%}{mark}")
    lines += [f"{name:<34}measured in one of the runs only" for name in lone]
    count = sum(figures.differs(change) for *_, change in both)
    lines.append(f"{count} of {len(both)} figures differ by more than {figures.NOTICEABLE:.0%}; "
                 "what differs by less says nothing")
    return "\n".join(lines)
