"""Sweeps a ConvMixer's patch size, kernel size, width and depth.

    python recipes/sweep.py --data FOLDER --output runs/sweep

FOLDER has train/CLASS/*.png and test/CLASS/*.png (or .jpg), or is the name
`cifar10` of tensorflow-datasets. Each trend starts from the same small
ConvMixer and changes one thing; all models are trained on the same images with
the same augmentation, optimizer, schedule and epochs. A kernel as wide as the
grid of patches mixes globally, like an MLP-Mixer.

Ends in a table, `sweep.json`, `sweep.csv` and `sweep.png`: accuracy and
multiply-accumulates along each trend. A sweep that was stopped goes on with the
same command, and so does one with further trends or values.

Result: `results/sweep.json` and beside it, of one epoch of half the images and
one seed,

    python recipes/sweep.py --data FOLDER --epochs 1 --steps_per_epoch 390

Time: a quarter of an hour of one core. So short a run shows patch size, width
and depth; between kernels of 3, 5, 9 and 16 it finds less than two points.
"""

import contest as contests
import launch
import matplotlib.figure
import matplotlib.ticker
import run_flags
from absl import flags

from convmixer_tf import ConvMixer
from convmixer_tf.files import replaced

TRENDS = {  # Argument of ConvMixer: what it is called.
    "patch_size": "patch size, pixels",
    "kernel_size": "kernel size, patches",
    "dim": "width",
    "depth": "depth",
}

flags.adopt_module_key_flags(contests)
flags.adopt_module_key_flags(run_flags)
_TRENDS = flags.DEFINE_list("trends", list(TRENDS), "What to sweep.")
_BASE = {
    "dim": flags.DEFINE_integer("dim", 64, "Width to start from.", 1),
    "depth": flags.DEFINE_integer("depth", 4, "Blocks to start from.", 1),
    "kernel_size": flags.DEFINE_integer("kernel_size", 5, "To start from."),
    "patch_size": flags.DEFINE_integer("patch_size", 2, "To start from."),
}
_VALUES = {
    "patch_size": flags.DEFINE_list("patch_sizes", ["2", "4", "8"], "Pixels."),
    "kernel_size": flags.DEFINE_list(
        "kernel_sizes",
        ["3", "5", "9", "16"],
        "Patches. At the default patch size, 16 is the whole grid.",
    ),
    "dim": flags.DEFINE_list("dims", ["32", "64", "128"], "Widths."),
    "depth": flags.DEFINE_list("depths", ["2", "4", "8"], "Blocks."),
}
flags.set_default(contests.OUTPUT, "runs/sweep")


def trends():
    """Lists the models of each trend, as the flags say.

    Returns:
        Dictionary from names of trends to lists of dictionaries, the first
        arguments of `ConvMixer`.

    Raises:
        ValueError: If a flag is wrong.
    """
    unknown = sorted(set(_TRENDS.value) - set(TRENDS))
    if unknown or not _TRENDS.value:
        raise ValueError(
            f"--trends takes some of {', '.join(TRENDS)}. "
            f"Received: {', '.join(unknown) or 'nothing'}"
        )
    base = {name: flag.value for name, flag in _BASE.items()}
    found = {}
    for trend in dict.fromkeys(_TRENDS.value):
        values = sorted({*_integers(_VALUES[trend]), base[trend]})
        found[trend] = [{**base, trend: value} for value in values]
        for model in found[trend]:
            contests.check_geometry(model["patch_size"], model["kernel_size"])
    return found


def _integers(flag):
    if not all(value.isdecimal() and int(value) for value in flag.value):
        raise ValueError(
            f"--{flag.name} must be positive integers with commas between. "
            f"Received: {','.join(flag.value)}"
        )
    return [int(value) for value in flag.value]


def name_of(model):
    """Names a model, for its folder."""
    return "convmixer_{dim}_{depth}_k{kernel_size}_p{patch_size}".format(
        **model
    )


def contestants(contest, models):
    """Describes each of several models once.

    Args:
        contest: A `Contest`.
        models: List of dictionaries, the first arguments of `ConvMixer`.

    Returns:
        List of `Contestant`.
    """

    def describe(model):
        def build(activation):
            return ConvMixer(
                **model,
                input_shape=contest.input_shape,
                classes=contest.classes,
                classifier_activation=activation,
            )

        return contests.Contestant(name_of(model), model, build)

    unique = {name_of(model): model for model in models}
    return [describe(model) for model in unique.values()]


def draw(path, rows):
    """Draws accuracy and cost along each trend, as a PNG."""
    names = list(dict.fromkeys(row["trend"] for row in rows))
    figure = matplotlib.figure.Figure(
        figsize=(4.2 * len(names), 3.8), layout="constrained"
    )
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    millions = [row["macs"] / 1e6 for row in rows]
    for axes, name in zip(panels, names, strict=True):
        points = [row for row in rows if row["trend"] == name]
        values = [row[name] for row in points]
        axes.plot(values, [100 * row["top1"] for row in points], "o-C0")
        axes.set(xlabel=TRENDS[name], xscale="log")
        axes.set_xticks(values, [str(value) for value in values])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.grid(alpha=0.3)
        costs = axes.twinx()
        costs.plot(values, [row["macs"] / 1e6 for row in points], "s--C1")
        costs.set(yscale="log", ylim=(min(millions) / 2, 2 * max(millions)))
        costs.tick_params(axis="y", colors="C1", which="both")
        if name == names[-1]:
            costs.set_ylabel("million multiply-accumulates", color="C1")
        else:
            costs.tick_params(axis="y", labelright=False)
    panels[0].set_ylabel("top-1, %", color="C0")
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def table(rows):
    """Formats the sweep as Markdown."""
    return contests.markdown(
        rows,
        {
            "trend": lambda row: TRENDS[row["trend"]].split(",")[0],
            "value": lambda row: str(row[row["trend"]]),
            "parameters": lambda row: f"{row['parameters']:,}",
            "million MACs": lambda row: f"{row['macs'] / 1e6:.1f}",
            "top-1": lambda row: f"{row['top1']:.2%}",
            "training loss": lambda row: f"{row['train_loss']:.3f}",
        },
    )


def main(argv):
    """Sweeps as the flags say."""
    run_flags.begin(argv)
    found = trends()
    contest = contests.open_contest()
    models = [model for trend in found.values() for model in trend]
    results = {
        row["name"]: row
        for row in contests.train_all(contest, contestants(contest, models))
    }
    rows = [
        {"trend": trend, **results[name_of(model)]}
        for trend, models in found.items()
        for model in models
    ]
    contests.write_results(contest, "sweep", rows)
    draw(contest.folder / "sweep.png", rows)
    print(table(rows))
    print(contest.folder / "sweep.png")


if __name__ == "__main__":
    launch.run(main)
