# SPDX-License-Identifier: MIT
"""From rounds to figures: medians, ratios, and whether a goal is met. Results are plain values, as
they are saved.

A ratio is the median of the ratios of the rounds: what else runs on the machine comes and goes, and
those who are measured one after the other share it. CPU time per request hardly depends on it."""
import statistics

from .rows import BEST_PEER, ITSELF, NATIVE, PEER_CPU, SERVER_CPU

# Smaller differences mean nothing on a machine that is shared.
NOTICEABLE = 0.15


def summary(values):
    return {"values": values, "median": statistics.median(values), "least": min(values),
            "most": max(values)}


def of_server(role, rounds, is_cost):
    found = {"role": role, "detail": "", **summary([r.value for r in rounds])}
    if not is_cost:
        for who in ("server", "machine"):
            found[f"{who}-us"] = summary(
                [r.microseconds(getattr(r, f"{who}_seconds")) for r in rounds])
    return found


def ratio(ours, other, is_cost):
    """Of two summaries, a summary. Above 1: ours is better."""
    pairs = zip(ours["values"], other["values"])
    ratios = [b / a if is_cost else a / b for a, b in pairs if a > 0 and b > 0]
    return summary(ratios) if ratios else None


def with_goal(figure, goals):
    goal = goals.get(figure["name"])
    if goal is not None:
        value = figure["value"]
        figure |= {"goal": goal, "met": value <= goal if figure["is-cost"] else value >= goal}
    return figure


def of_row(row, by_server):
    """The figures of a row from what its servers gave: a list of dictionaries."""
    ours = next(s for s in by_server.values() if s["role"] == "ours")
    figures = []

    def add_ratio(name, against, found):
        if found is not None:
            figures.append({"name": name, "against": against, "is-cost": False, "unit": "",
                            "value": found["median"], "least": found["least"],
                            "most": found["most"]})

    def add_cost(name, value, unit):
        figures.append({"name": name, "against": "", "is-cost": True, "unit": unit, "value": value})

    peers = [name for name, s in by_server.items() if s["role"] == "peer"]
    if peers:
        best = (min if row.is_cost else max)(peers, key=lambda name: by_server[name]["median"])
        add_ratio(BEST_PEER, best, ratio(ours, by_server[best], row.is_cost))
        if not row.is_cost:
            cpu = ratio(ours["machine-us"], by_server[best]["machine-us"], is_cost=True)
            add_ratio(PEER_CPU, best, cpu)
    for name, server in by_server.items():
        if server["role"] in ("native", "reference"):
            add_ratio(NATIVE if server["role"] == "native" else name, name,
                      ratio(ours, server, row.is_cost))
    if ITSELF in row.goals:
        add_cost(ITSELF, ours["median"], row.unit)
    elif SERVER_CPU in row.goals:
        add_cost(SERVER_CPU, ours["server-us"]["median"], "us")
    return [with_goal(f, row.goals) for f in figures]


def unjudged(row, figures):
    """The goals that nothing was measured for."""
    return [name for name in row.goals if name not in [f["name"] for f in figures]]


def compare(old, new):
    """[(row, name of the figure, old figure, new figure, change)] of what both runs have, and the
    names of the rows that only one of them measured."""
    both, lone = [], []
    for name in [*new["rows"], *(n for n in old["rows"] if n not in new["rows"])]:
        before = figures_by_name(old, name)
        after = figures_by_name(new, name)
        if not before or not after:
            if before or after:
                lone.append(name)
            continue
        for key, figure in after.items():
            if key in before and before[key]["value"]:
                change = figure["value"] / before[key]["value"] - 1
                both.append((name, key, before[key], figure, change))
    return both, lone


def figures_by_name(run, row):
    return {f["name"]: f for f in run["rows"].get(row, {}).get("figures", [])}


def differs(change):
    """Either way: twice as good and half as good are equally far from the same."""
    return change > NOTICEABLE or 1 / (1 + change) - 1 > NOTICEABLE
