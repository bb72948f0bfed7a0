"""BENCHMARKS.md: what was measured, on what, how, and what was not."""

import statistics
from pathlib import Path

from race import readable

# What no program can find out.
MISSES = Path(__file__).resolve().parent.parent / "misses.md"

HEAD = """# Benchmarks

```sh
{command}
```

wrote this on {date}; no figure in a table was typed by hand. {rounds} rounds, the contenders of a row one after the other in
each. A figure is the median of the rounds; a ratio is the median of the ratios within a round, so that
what else went on touches both sides of it; in parentheses is the least and the most of them. CPU is what the whole
server took, user and system, for one request. Client and server share the machine: take the ratios, the numbers are
this machine's. The requests that h2load sends, in the files under BODIES, are those of
`benches/comparison/messages.py`.

{machine}.

| | version |
| --- | --- |
{versions}

## Goals
"""

GOALS = """
| load | of | against | what | ratio | goal | |
| --- | --- | --- | --- | --- | --- | --- |
"""


def table(rows):
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def goals(results):
    for result in results:
        for goal, ratio, ratios in result.outcomes():
            verdict = "met" if goal.is_met(ratio) else "**not met**"
            yield result.row.title, goal.ours, goal.theirs or "", goal.figure, spread(ratios), str(goal), verdict


def figures(result):
    known = (name for lane, rounds in result.rounds.items() for name in [*rounds[0], *result.apart[lane]])
    names = list(dict.fromkeys(known))
    yield f"\n### {result.row.title}\n\n"
    yield table([["", *names], ["---"] * (1 + len(names))])
    for lane, rounds in result.rounds.items():
        known = {figure: spread(each[figure] for each in rounds) for figure in rounds[0]}
        known |= {figure: readable(value) for figure, value in result.apart[lane].items()}
        yield table([[lane, *(known.get(name, "") for name in names)]])
    commands = "\n".join(f"# {lane}\n{command}" for lane, command in result.commands.items())
    yield f"\n```sh\n{commands}\n```\n"


def spread(values):
    ordered = sorted(values)
    return f"{readable(statistics.median(ordered))} ({readable(ordered[0])} to {readable(ordered[-1])})"


def written(results, **facts):
    facts["versions"] = "\n".join(f"| {name} | {version} |" for name, version in facts["versions"].items())
    parts = [HEAD.format(**facts), GOALS, table(goals(results))]
    absent = [(result.row.title, lane, why) for result in results for lane, why in result.absent.items()]
    absent += [(result.row.title, "", f"it went wrong: {result.wrong}") for result in results if result.wrong]
    if absent:
        lines = (f"- {title}{', ' if lane else ''}{lane}: {why}\n" for title, lane, why in absent)
        parts += ["\n## Not measured\n\n", *lines]
    parts += ["\n", MISSES.read_text(), "\n## Figures\n"]
    for result in results:
        if result.rounds:
            parts += figures(result)
    return "".join(parts)
