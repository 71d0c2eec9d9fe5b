"""What the times mean: best batches, ratios, shares, a table, a picture."""

import itertools
import statistics
import textwrap

from speed.costs import MODELS
from speed.costs import least_bytes
from speed.costs import macs

CASE = ("model", "step", "dtype")
_COLORS = {"ours": "#1b6ca8", "timm": "#b0b7bf"}


def summarise(entries, ceilings=None, predictions=None, together=True):
    """Compares contestants, each with the batch size that suits it best.

    Args:
        entries: List of entries, see `rounds.Store`.
        ceilings: Dictionary of the device's limits: FLOP/s of matrix products
            by dtype, and "copy", bytes/s.
        predictions: List of what `costs.predictions` has as "ms_per_image".
        together: Boolean, whether contestants took turns. If so, the rounds
            of the same number were next to each other in time.

    Returns:
        List of a dictionary for each model, step and dtype. "best" has, for
        each contestant, its batch size, milliseconds per image, images/s,
        TFLOP/s by all multiply-accumulates, and shares of the device's limits:
        "share", of matrix products, and "copy_share", of copies, by the least
        bytes. "ratio" is our best time over timm's best, "ratio_quartiles"
        are those of the ratios of single rounds.
    """
    ceilings, summaries = ceilings or {}, {}
    for entry in entries:
        key = tuple(entry[column] for column in CASE)
        summary = summaries.setdefault(
            key, {**dict(zip(CASE, key, strict=True)), "best": {}}
        )
        for name, time in entry["ms_per_image"].items():
            former = summary["best"].get(name)
            if former is None or time < former["ms_per_image"]:
                summary["best"][name] = _rates(entry, time, ceilings)
    for summary in summaries.values():
        summary |= _ratio(summary, entries, together)
        summary["predicted_ms_per_image"] = next(
            (
                row
                for row in predictions or []
                if all(row[column] == summary[column] for column in CASE)
            ),
            None,
        )
    return list(summaries.values())


def _rates(entry, time, ceilings):
    model, step, dtype = MODELS[entry["model"]], entry["step"], entry["dtype"]
    rate = 2 * macs(model, step) / (time / 1e3)
    bandwidth = least_bytes(model, step, dtype) / (time / 1e3)
    ceiling, copy = ceilings.get(dtype), ceilings.get("copy")
    return {
        "batch_size": entry["batch_size"],
        "ms_per_image": time,
        "images_per_s": 1e3 / time,
        "tflop_per_s": rate / 1e12,
        "share": ceiling and rate / ceiling,
        "copy_share": copy and bandwidth / copy,
    }


def _ratio(summary, entries, together):
    best = summary["best"]

    def fastest(whose):
        names = [name for name in best if name.startswith(whose)]
        return min(names, key=lambda n: best[n]["ms_per_image"], default=None)

    def rounds(name):
        (entry,) = (
            entry
            for entry in entries
            if all(entry[column] == summary[column] for column in CASE)
            and entry["batch_size"] == best[name]["batch_size"]
        )
        return entry["all_ms_per_image"][name]

    ours, theirs = fastest("ours"), fastest("timm")
    if None in (ours, theirs):
        return {"ours": ours, "timm": theirs}
    pair = rounds(ours), rounds(theirs)
    same = best[ours]["batch_size"] == best[theirs]["batch_size"]
    paired = together and same and len(pair[0]) == len(pair[1])
    pairs = zip(*pair, strict=True) if paired else itertools.product(*pair)
    low, _, high = statistics.quantiles(
        [a / b for a, b in pairs], n=4, method="inclusive"
    )
    return {
        "ours": ours,
        "timm": theirs,
        "ratio": best[ours]["ms_per_image"] / best[theirs]["ms_per_image"],
        "ratio_quartiles": [low, high],
    }


def line(entry, name, ceilings=None):
    """Formats one measurement, for the progress.

    Args:
        entry: Dictionary, see `rounds.Store`.
        name: The contestant's name.
        ceilings: As in `summarise`.

    Returns:
        String.
    """
    what = " ".join(str(entry[column]) for column in CASE)
    start = f"{what} x{entry['batch_size']} {name}:"
    if name in entry["failed"]:
        return f"{start} {entry['failed'][name]}"
    rates = _rates(entry, entry["ms_per_image"][name], ceilings or {})
    times = entry["all_ms_per_image"][name]
    spread = (max(times) - min(times)) / rates["ms_per_image"]
    return (
        f"{start} {rates['ms_per_image']:.4g} ms/image, "
        f"{rates['images_per_s']:.4g} images/s, "
        f"{rates['tflop_per_s']:.3g} TFLOP/s{_percent(rates['share'])}, "
        f"spread {spread:.0%}, "
        f"first step {entry['first_step_s'][name]:.1f} s"
    )


def _percent(share):
    return "" if share is None else f", {share:.0%}"


def _number(value):
    """Formats three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(summaries):
    """Formats what `summarise` gives as a Markdown table.

    Args:
        summaries: List of dictionaries.

    Returns:
        String, a line per case. Times are milliseconds per image, in brackets
        whose, and with which batch size.
    """
    lines = [
        "| model | step | dtype | ours | timm's best | ratio | quartiles "
        "| images/s | of matrix products | of copies | predicted |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for summary in summaries:
        cells = [summary[column] for column in CASE]
        cells += [_cell(summary, whose) for whose in ("ours", "timm")]
        low_high = summary.get("ratio_quartiles")
        cells += [
            f"{summary['ratio']:.2f}" if low_high else "-",
            "{:.2f} to {:.2f}".format(*low_high) if low_high else "-",
        ]
        ours = summary["best"].get(summary["ours"], {})
        shares = [ours.get(key) for key in ("share", "copy_share")]
        predicted = summary["predicted_ms_per_image"]
        cells += [
            _number(ours["images_per_s"]) if ours else "-",
            *("-" if share is None else f"{share:.0%}" for share in shares),
            f"{predicted['unfused']:.3g}" if predicted else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(summary, whose):
    name = summary[whose]
    if name is None:
        return "-"
    best = summary["best"][name]
    label = f"{name.removeprefix(whose)} x{best['batch_size']}".strip()
    return f"{_number(best['ms_per_image'])} ({label})"


def predictions_table(predictions):
    """Formats what `costs.predictions` gives as a Markdown table."""
    kinds = ("roofline", "copies", "fused", "unfused")
    lines = [
        "| model | step | dtype | GFLOP | "
        + " | ".join(f"{kind}, ms" for kind in kinds)
        + " | images/s, unfused |",
        "|---|---|---|---|" + "---|" * (len(kinds) + 1),
    ]
    for row in predictions["ms_per_image"]:
        cells = [row[column] for column in CASE] + [f"{row['gflop']:.3g}"]
        cells += [f"{row[kind]:.4f}" for kind in kinds]
        cells.append(f"{1e3 / row['unfused']:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def save_plot(path, summaries, title):
    """Draws images/s of all contestants, a panel for each case.

    Args:
        path: Path of the PNG file.
        summaries: List of what `summarise` gives.
        title: String.
    """
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(s["model"] for s in summaries))
    kinds = list(dict.fromkeys((s["step"], s["dtype"]) for s in summaries))
    names = dict.fromkeys(n for s in summaries for n in s["best"])
    names = sorted(names, key=lambda name: name.startswith("timm"))
    width = 4 * len(models) + 1
    height = 1.1 + len(kinds) * (0.7 + 0.24 * len(names))
    figure = Figure((width, height), layout="constrained")
    legend = "images/s, share of the rate of matrix products, batch size"
    if any(summary["predicted_ms_per_image"] for summary in summaries):
        legend += "; dotted: predicted, unfused"
    lines = [textwrap.fill(text, 15 * width) for text in (title, legend)]
    figure.suptitle("\n".join(lines), fontsize=9)
    panels = figure.subplots(len(kinds), len(models), squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for summary in filter(lambda summary: summary["best"], summaries):
        row = kinds.index((summary["step"], summary["dtype"]))
        _draw(panels[row, models.index(summary["model"])], summary, names)
    figure.savefig(path, dpi=120)


def _draw(panel, summary, names):
    """Draws one case; a bar is a contestant, the dotted line a prediction."""
    panel.set_axis_on()
    names = [name for name in names if name in summary["best"]]
    best = [summary["best"][name] for name in names]
    values = [one["images_per_s"] for one in best]
    bars = panel.barh(
        names, values, color=[_COLORS[name.split()[0]] for name in names]
    )
    labels = [
        f" {_number(one['images_per_s'])}{_percent(one['share'])}, "
        f"x{one['batch_size']}"
        for one in best
    ]
    white = {"color": "white", "pad": 0}
    panel.bar_label(bars, labels, padding=2, fontsize=8, bbox=white)
    widest = max(values)
    predicted = summary["predicted_ms_per_image"]
    if predicted:
        expected = 1e3 / predicted["unfused"]
        panel.axvline(expected, color="#c0392b", linestyle=":")
        widest = max(widest, expected)
    panel.set_xlim(0, 1.1 * max(widest, 1.5 * max(values)))
    panel.locator_params("x", nbins=4)
    panel.invert_yaxis()
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(
        "{model}, {step}, {dtype}".format(**summary), fontsize=9, loc="left"
    )
    panel.set_xlabel("images/s", fontsize=8)
