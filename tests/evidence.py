"""Made-up cells, outcomes and images: what the store tests store."""

from dataclasses import fields, replace

import numpy as np

from benchbox.domain import Access, Cell, Outcome, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.store import Adversarials

CELL = Cell(
    defense=Spec("pssr", {"alpha": 1.5}, "benchbox/1"),
    artifact="a",
    attack=Spec("pgd", {"steps": 40}, "benchbox/1"),
    access=Access.GRAY_BOX,
    view=ViewSpec("b"),
    threat=ThreatModel("linf", 0.3),
    samples=SampleList("digits", "test", (4, 0, 5, 1, 9, 7), "c"),
)
RANDOM = replace(CELL, defense=Spec("carso", {}, "benchbox/1"), scoring_draws=10)


def outcome(cell, positions, seed=0):
    """Any numbers, the same for a seed; thirds and roots, so that a lost digit shows."""
    rng = np.random.default_rng(seed)
    n = len(positions)
    return Outcome(
        position=np.array(positions, np.int64),
        label=rng.integers(0, 10, n),
        clean=rng.integers(0, 10, (n, cell.scoring_draws)),
        adversarial=rng.integers(0, 10, (n, cell.scoring_draws)),
        first_success=rng.integers(-1, 40, n),
        linf=rng.random(n) / 3,
        l2=rng.random(n) ** 0.5,
        forwards=rng.random(n) * 40,
        backwards=rng.random(n) * 40,
    )


def images(key, positions, seed=0, shape=(3, 4, 4)):
    rng = np.random.default_rng(seed)
    n = len(positions)
    return Adversarials(
        craft_key=key,
        position=np.array(positions, np.int64),
        x=rng.random((n, *shape), np.float32),
        first_success=rng.integers(-1, 40, n),
        forwards=rng.random(n),
        backwards=rng.random(n),
    )


def assert_same(got, expected, rows=slice(None)):
    for field in fields(expected):
        left, right = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(right, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right[rows])
        else:
            assert left == right


def begin(store, *cells):
    run = store.begin_run({"dataset": "digits"}, {"torch": "2.6"})
    for cell in cells:
        store.add_cell(cell, run)
    return run


def fill(store):
    """What tests/assets/store-0001.sqlite holds."""
    run = begin(store, CELL, RANDOM)
    store.commit_batch(CELL, outcome(CELL, range(6)), seconds=1.5, crafted=images(CELL.craft_key, range(6)))
    store.commit_batch(RANDOM, outcome(RANDOM, [0, 1]), seconds=0.5)
    store.fail(RANDOM, "out of memory")
    store.put_artifact("a", {"recipe": {"epochs": 3}})
    store.remember("batch/cpu", 125)
    store.attach(CELL.key, "transfer", {"share": 0.25})
    store.finish_run(run, "failed")


def assert_filled(store):
    done, failed = store.evidence()
    assert (done.cell, done.status, done.seconds, done.error) == (CELL, "done", 1.5, "")
    assert_same(done.outcome, outcome(CELL, range(6)))
    assert (failed.cell, failed.status, failed.error) == (RANDOM, "failed", "out of memory")
    assert_same(failed.outcome, outcome(RANDOM, [0, 1]))
    assert_same(store.crafted(CELL.craft_key, np.arange(6)), images(CELL.craft_key, range(6)))
    assert store.artifact("a") == {"recipe": {"epochs": 3}}
    assert store.recall("batch/cpu") == 125
    assert store.attached(CELL.key, "transfer") == {"share": 0.25}
    (run,) = store.runs()
    assert (run.status, run.request, run.cells) == ("failed", {"dataset": "digits"}, 2)


def first(n):
    """The first n images of the digits."""
    return SampleList("digits", "test", tuple(range(n)), "c")
