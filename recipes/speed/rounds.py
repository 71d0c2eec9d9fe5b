"""Which batches are timed, in which order, and when to stop."""

import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable

from speed.cases import find_contestant
from speed.costs import MODELS
from speed.workers import OUT_OF_MEMORY
from speed.workers import ContestantError

GAIN = 1.03  # images/s, below which a batch of twice the size is the last
FEWEST_ROUNDS = 3
_DOUBLINGS = 10

# Where the search begins, and on a CPU also ends.
FIRST_BATCH = {
    "cpu": {"1024_20": 4, "768_32": 4, "1536_20": 2, "256_8": 64, "16_2": 8},
    "gpu": {
        "1024_20": 128,
        "768_32": 64,
        "1536_20": 64,
        "256_8": 1024,
        "16_2": 1024,
    },
}


class OutOfTimeError(Exception):
    """The run has had its minutes."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a run times what it times.

    Attributes:
        device: `"cpu"` or `"gpu"`.
        together: Boolean, whether contestants take turns, one round each.
        batch_sizes: Tuple of integers, images a step; empty for what
            `FIRST_BATCH` has.
        search: Boolean, whether to double the batch until the memory is full
            or images/s grow by less than `GAIN`.
        rounds: Integer, timed rounds of each.
        seconds: Float, after which a contestant has had enough of one batch
            size: it is asked for no more rounds, or given up.
        deadline: `time.monotonic()` after which nothing is begun, and what is
            begun is given up.
    """

    device: str
    together: bool
    batch_sizes: tuple = ()
    search: bool = False
    rounds: int = 11
    seconds: float = 600.0
    deadline: float = float("inf")

    def limit(self):
        """Gives how many seconds from now an answer may take."""
        return max(0.0, min(self.seconds, self.deadline - time.monotonic()))

    def sizes(self, model):
        """Gives the batch sizes of a model, in the order of trying."""
        sizes = self.batch_sizes or (FIRST_BATCH[self.device][model],)
        if self.search:
            sizes = [max(sizes) * 2**i for i in range(_DOUBLINGS)]
        return sorted(sizes)


def schedule(cases, names, backend, together):
    """Orders a run.

    Args:
        cases: List of `Case`.
        names: List of contestants.
        backend: Name of Keras' backend.
        together: Boolean, whether contestants take turns. If not, each has
            its own go, by model and framework: processes start less often.

    Yields:
        A `Case` and a list of the contestants to time at once.
    """

    def applying(case, framework=None):
        return [
            name
            for name in names
            if framework in (None, find_contestant(name).framework)
            and find_contestant(name).applies(case, backend)
        ]

    if together:
        for case in cases:
            yield case, applying(case)
        return
    frameworks = dict.fromkeys(
        find_contestant(name).framework for name in names
    )
    for _, group in itertools.groupby(cases, lambda case: case.model):
        for framework, case in itertools.product(frameworks, list(group)):
            for name in applying(case, framework):
                yield case, [name]


@dataclasses.dataclass
class Store:
    """What has been measured, an entry for each case and batch size.

    Attributes:
        entries: List of dictionaries, ready for JSON.
        save: Function without arguments, called after each change.
    """

    entries: list
    save: Callable = lambda: None

    def find(self, case, batch_size):
        """Gives the entry of a case and a batch size, empty if it is new."""
        key = {**dataclasses.asdict(case), "batch_size": batch_size}
        for entry in self.entries:
            if key.items() <= entry.items():
                return entry
        columns = ("ms_per_image", "all_ms_per_image", "first_step_s", "failed")
        return {**key, **{column: {} for column in columns}}

    def put(self, entry):
        """Keeps an entry."""
        if not any(entry is other for other in self.entries):
            self.entries.append(entry)
        self.save()


def measure(case, names, plan, workers, store, report):
    """Times contestants of a case with every batch size of the plan.

    What the store has is not timed again, but for those that failed in an
    earlier run with memory enough. Who fails with a batch size is not asked
    for a larger one.

    Args:
        case: A `Case`.
        names: List of contestants, timed at once.
        plan: A `Plan`.
        workers: A `Workers`.
        store: A `Store`.
        report: Function of an entry and a contestant's name, called after
            each.

    Raises:
        OutOfTimeError: If the deadline has come.
    """
    best = {}
    for batch_size in plan.sizes(case.model):
        entry = store.find(case, batch_size)
        failed = entry["failed"]
        able = [n for n in names if failed.get(n) != OUT_OF_MEMORY]
        if not entry["ms_per_image"].keys() >= set(able):
            if time.monotonic() > plan.deadline:
                raise OutOfTimeError
            for name in able:
                failed.pop(name, None)
            time_batch(entry, case, able, plan, workers)
            store.put(entry)
            for name in able:
                report(entry, name)
        times = entry["ms_per_image"]
        names = [
            name
            for name in names
            if name in times
            and (not plan.search or times[name] * GAIN < best.get(name, 1e9))
        ]
        best.update({name: times[name] for name in names})
        if not names:
            return


def time_batch(entry, case, names, plan, workers):
    """Times contestants with one batch size.

    Args:
        entry: Dictionary that takes up the results; see `Store`.
        case: A `Case`.
        names: List of contestants.
        plan: A `Plan`.
        workers: A `Workers`.
    """
    model, batch_size = MODELS[case.model], entry["batch_size"]
    ready = {}
    for name in names:
        contestant = find_contestant(name)
        with _noting_failure(entry, name):
            worker = workers.get(name, contestant.framework)
            message = "prepare", case, model, batch_size, contestant
            entry["first_step_s"][name] = worker.ask(plan.limit(), *message)
            ready[name] = worker
    seconds = {name: [] for name in ready}
    end = time.monotonic() + plan.seconds * len(names)
    end = min(end, plan.deadline)
    for i in range(plan.rounds):
        if i >= FEWEST_ROUNDS and time.monotonic() > end:
            break
        for name in [name for name in ready if name not in entry["failed"]]:
            with _noting_failure(entry, name):
                one = ready[name].ask(plan.limit(), "time_round")
                seconds[name].append(one)
    for name, many in seconds.items():
        if name not in entry["failed"]:
            times = [1e3 * one / batch_size for one in many]
            entry["all_ms_per_image"][name] = times
            entry["ms_per_image"][name] = statistics.median(times)


@contextlib.contextmanager
def _noting_failure(entry, name):
    try:
        yield
    except ContestantError as failure:
        entry["failed"][name] = str(failure)
