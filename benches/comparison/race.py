"""What a row is, and how it is measured: contenders one after the other, round by round, each ratio within one round.

What else happens on the machine then happens to all of them, and a ratio of one round says more than one of medians.
"""

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from gauge import cpu_s, syscalls
from peers import NotMeasured
from world import Wrong

RATE, CPU, SYSCALLS, BYTES, P99 = "a second", "CPU µs each", "system calls each", "bytes each", "p99 ms"
# Near 1, and its one thread may be what is measured.
GENERATOR = "cores for the generator"


@dataclass
class Lane:
    """A contender. `measure` returns its figures of one round, and `afterwards` those that are measured once, apart."""

    name: str
    measure: Callable[[], dict]
    command: str = ""
    afterwards: Callable[[], dict] = dict


@dataclass
class Goal:
    """What `ours` is to be to `theirs` in a figure, at most or at least; without `theirs`, what the figure is to be."""

    ours: str
    theirs: str | None
    figure: str
    bound: float
    at_most: bool

    def ratios(self, rounds):
        ours = [figures[self.figure] for figures in rounds[self.ours]]
        if self.theirs is None:
            return ours
        return [mine / its[self.figure] for mine, its in zip(ours, rounds[self.theirs])]

    def is_met(self, ratio):
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    def __str__(self):
        return f"{'≤' if self.at_most else '≥'} {self.bound:,g}"


def at_most(bound, figure, ours, theirs=None):
    return Goal(ours, theirs, figure, bound, at_most=True)


def at_least(bound, figure, ours, theirs=None):
    return Goal(ours, theirs, figure, bound, at_most=False)


@dataclass
class Row:
    """`lanes` starts what it needs within an ExitStack; it and every lane may raise NotMeasured."""

    name: str
    title: str
    lanes: Callable
    goals: list[Goal]


@dataclass
class Result:
    row: Row
    rounds: dict = field(default_factory=dict)  # by lane, the figures of each round
    apart: dict = field(default_factory=dict)  # by lane, what was measured once
    commands: dict = field(default_factory=dict)
    absent: dict = field(default_factory=dict)  # lanes, or the whole row under "", and why
    wrong: str = ""

    def median(self, lane, figure):
        return statistics.median(figures[figure] for figures in self.rounds[lane])

    def outcomes(self):
        """Each goal whose contenders were there: the median ratio, and all of them in order."""
        for goal in self.row.goals:
            if {goal.ours, goal.theirs} - {None} <= self.rounds.keys():
                ratios = sorted(goal.ratios(self.rounds))
                yield goal, statistics.median(ratios), ratios

    def lines(self):
        for lane, rounds in self.rounds.items():
            medians = {figure: self.median(lane, figure) for figure in rounds[0]} | self.apart.get(lane, {})
            yield f"{lane}: " + ", ".join(f"{readable(value)} {figure}" for figure, value in medians.items())
        for goal, ratio, ratios in self.outcomes():
            to = f" to {goal.theirs}" if goal.theirs else ""
            spread = f"{readable(ratios[0])} to {readable(ratios[-1])}"
            verdict = "met" if goal.is_met(ratio) else "NOT MET"
            yield f"{goal.ours}{to}, {goal.figure}: {readable(ratio)} ({spread}), goal {goal}: {verdict}"
        for lane, why in self.absent.items():
            yield f"NOT MEASURED{', ' if lane else ''}{lane}: {why}"
        if self.wrong:
            yield f"WRONG: {self.wrong}"


def readable(number):
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


class Contenders:
    """The lanes of a row that could be started; one that could not is no reason to leave the others out."""

    def __init__(self, result):
        self.result = result
        self.lanes = []

    def enter(self, name, start):
        """`start` returns the Lane, or says why there is none."""
        try:
            self.lanes.append(start())
        except NotMeasured as why:
            self.result.absent[name] = str(why)


def race(row, setting):
    """Measures a row, as many rounds as the setting says. What goes wrong is no reason to leave the other rows out."""
    result = Result(row)
    try:
        with contextlib.ExitStack() as stack:
            measure(row, setting, stack, result)
    except NotMeasured as why:
        result.absent[""] = str(why)
    except (Wrong, OSError) as what:
        result.wrong = str(what) or repr(what)
    if result.wrong or "" in result.absent:
        result.rounds.clear()
    return result


def measure(row, setting, stack, result):
    contenders = Contenders(result)
    row.lanes(stack, setting, contenders.enter)
    lanes = contenders.lanes
    for number in range(setting.rounds):
        # Nobody is always first.
        turn = number % max(len(lanes), 1)
        for lane in lanes[turn:] + lanes[:turn]:
            result.rounds.setdefault(lane.name, []).append(lane.measure())
    for lane in lanes:
        result.commands[lane.name] = lane.command
        result.apart[lane.name] = lane.afterwards()


def served(name, server, load, setting, ops=1):
    """The lane of a server under a load, of which each request does so many operations."""
    requests = load.requests_in(server.address, setting.seconds)

    def measure():
        before = cpu_s(server.pid)
        ran = load.run(server.address, requests)
        spent_s = cpu_s(server.pid) - before
        if spent_s == 0:
            raise Wrong(f"{name} answered {requests} requests in no time: too few")
        count = ran.requests * ops
        return {RATE: count / ran.seconds, CPU: spent_s / count * 1e6, GENERATOR: ran.generator_s / ran.seconds}

    def traced():
        if not setting.traces:
            return {}
        counted = syscalls(server.pid, lambda within: load.run(server.address, requests, within))
        return {SYSCALLS: counted / (requests * ops)}

    words = map(str, load.command("ADDRESS:PORT", requests))
    return Lane(name, measure, " ".join(words).replace(str(setting.directory), "BODIES"), traced)
