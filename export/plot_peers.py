"""Draws the results of `benchmark.py --peers` as one picture.

    python export/plot_peers.py results/peers/*.json --output peers.png

A dot is the time of one model in one runtime, relative to Keras'
`predict_on_batch` in the same run. Each number of threads has a panel.
"""

import json
import pathlib

import matplotlib.figure
from absl import app
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

BASE = "Keras predict_on_batch"

_OUTPUT = flags.DEFINE_string("output", None, "PNG file to write.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Whether to replace it.")
flags.mark_flag_as_required("output")


def draw(runs):
    """Draws the relative time of each artifact.

    Args:
        runs: List of results of `benchmark.py --peers`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    threads = sorted({run["threads"] for run in runs})
    models = sorted({name_of(run) for run in runs})
    names = [x["artifact"] for x in runs[0]["artifacts"]]
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    rows = range(len(names))
    for number, axes in zip(threads, panels, strict=True):
        for run in runs:
            if run["threads"] != number:
                continue
            times = {
                x["artifact"]: x["wall_milliseconds"] for x in run["artifacts"]
            }
            model = models.index(name_of(run))
            shift = 0.16 * (model - (len(models) - 1) / 2)
            axes.plot(
                [times[name] / times[BASE] for name in names],
                [row + shift for row in rows],
                "o",
                color=f"C{model}",
                label=f"ConvMixer-{name_of(run)}",
            )
        axes.axvline(1, color="0.4", linewidth=1)
        axes.set(
            title="1 thread" if number == 1 else f"{number} threads",
            xlim=(0, None),
            yticks=rows,
            yticklabels=names,
        )
        axes.grid(alpha=0.3)
    figure.supxlabel(f"time of an image relative to {BASE}", fontsize="medium")
    panels[0].invert_yaxis()
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def name_of(run):
    """Returns the name of a run's model."""
    return pathlib.Path(run["model"]).stem.replace("_", "/")


def main(argv):
    """Draws the picture."""
    if not argv[1:]:
        raise app.UsageError("Pass the JSON files of `benchmark.py --peers`.")
    check_destination(_OUTPUT.value, (".png",), _OVERWRITE.value)
    runs = [json.loads(pathlib.Path(path).read_text()) for path in argv[1:]]
    with replaced(_OUTPUT.value) as unfinished:
        draw(runs).savefig(unfinished, dpi=110)


if __name__ == "__main__":
    app.run(main)
