"""What a load test found: figures, a table, a JSON file and a picture."""

import json
import os
import pathlib
import platform
import time
from importlib import metadata

import load_client
import matplotlib.figure
import numpy as np

from convmixer_tf import timing
from convmixer_tf.files import replaced

# That send without pause, for the capacity.
CLIENTS = 32


def summary(answers, sending, seconds):
    """Puts the answers of a phase into figures.

    Args:
        answers: List of `load_client.Answer`, to good clients.
        sending: For how many seconds requests were sent.
        seconds: How many it took until the last was answered.

    Returns:
        Dictionary. Latencies are in milliseconds.
    """
    good = [1e3 * x.seconds for x in answers if x.status == 200]
    refused = [1e3 * x.seconds for x in answers if x.status == 503]
    return {
        "offered_per_second": len(answers) / sending,
        "answered_per_second": len(good) / seconds,
        "refused_per_second": len(refused) / seconds,
        "p50_ms": _percentile(good, 50),
        "p99_ms": _percentile(good, 99),
        "refused_p99_ms": _percentile(refused, 99),
        "statuses": load_client.count(answers),
    }


def _percentile(values, percent):
    return float(np.percentile(values, percent)) if values else None


_COLUMNS = {
    "phase": "phase",
    "offered_per_second": "requests/s",
    "answered_per_second": "answered/s",
    "refused_per_second": "refused/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "refused_p99_ms": "p99 of refusals, ms",
    "server_megabytes": "server, MB",
}


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def line(figures):
    """Puts a phase into a line of the log."""
    cells = [
        f"{title} {_cell(figures[name])}"
        for name, title in list(_COLUMNS.items())[1:]
    ]
    return ", ".join([*cells, str(figures["statuses"])])


def table(record):
    """Formats what was found as Markdown."""
    titles = [*_COLUMNS.values(), "statuses"]
    rows = [
        [*[_cell(x[name]) for name in _COLUMNS], _counts(x["statuses"])]
        for x in record["phases"]
    ]
    rows = [titles, len(titles) * ["---"], *rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.append("")
    for name, fate in record["junk"].items():
        fate = dict(fate)
        lines.append(f"- {name}, due {fate.pop('due')}: {_counts(fate)}")
    recovery = record["recovery"]
    memory = record["server_megabytes"]
    lines += [
        f"- hang-ups noticed: {record['hang_ups_noticed']}",
        "- latency of one client, relative to the beginning: "
        f"{recovery['overload']:.2f} after overload, "
        f"{recovery['all']:.2f} at the end",
        f"- memory of the server: {memory['before']:.0f} MB before, "
        f"{memory['after']:.0f} after, {memory['most']:.0f} at most",
        f"- SIGTERM: status {record['sigterm']['status']} after "
        f"{record['sigterm']['seconds']:.1f} s",
    ]
    return "\n".join(lines)


def _counts(counts):
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def write(record, path):
    """Writes the record, with the machine, and draws it.

    Args:
        record: Dictionary.
        path: `pathlib.Path` of the JSON file; the PNG lies beside it.
    """
    record = {"machine": machine(), **record}
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(json.dumps(record, indent=1))
    with replaced(path.with_suffix(".png")) as unfinished:
        draw(record).savefig(unfinished, dpi=120)


def machine():
    """Describes what the figures depend on."""
    packages = ("tensorflow", "uvicorn", "uvloop", "starlette", "aiohttp")
    return {
        "processor": timing.cpu(),
        "cores": os.cpu_count(),
        "server": "one core",
        "client": "another core",
        "load average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # uvicorn does without uvloop.


def draw(record):
    """Draws latency, and what is answered and refused, against the load.

    Args:
        record: Dictionary.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    capacity = record["capacity_per_second"]
    phases = [x for x in record["phases"] if x["phase"].endswith("x capacity")]
    loads = [x["aimed_at"] / capacity for x in phases]
    figure = matplotlib.figure.Figure((7, 6), layout="constrained")
    latency, rates = figure.subplots(2, sharex=True)
    for axes, name, style, label in (
        (latency, "p50_ms", "o-", "p50 of answers"),
        (latency, "p99_ms", "s--", "p99 of answers"),
        (latency, "refused_p99_ms", "x:", "p99 of refusals (503)"),
        (rates, "answered_per_second", "o-", "answered"),
        (rates, "refused_per_second", "x:", "refused (503)"),
    ):
        # Zero and nothing have no place on this scale.
        values = [x[name] or np.nan for x in phases]
        axes.plot(loads, values, style, label=label)
    latency.set(ylabel="latency, ms", yscale="log", xscale="log")
    rates.set(ylabel="requests a second", yscale="log")
    rates.set_xlabel(
        f"requests sent, as a multiple of the capacity: {capacity:.3g} a "
        f"second,\nwhat {CLIENTS} clients that don't pause get answered"
    )
    rates.set_xticks(loads, [f"{load:g}" for load in loads], minor=False)
    rates.set_xticks([], minor=True)
    for axes in (latency, rates):
        axes.axvline(1, color="grey", linewidth=1)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure
