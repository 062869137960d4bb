"""What the judge asks, in which draws, and what it makes of the answers: each against a count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from evidence import CELL, RANDOM
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchbox import Card, Defense, DefenseError, Draws, ImageSpec, Recipe
from benchbox.contract.attack import Crafted
from benchbox.contract.stepwise import StepwisePurifier
from benchbox.contract.view import Trail
from benchbox.engine import booth, secret, transfer
from benchbox.engine.judge import Judge, Streams, check_logits, slices
from benchbox.training.layout import Layout

CPU = torch.device("cpu")
ROWS = (4, 9, 2, 7, 5)
SECRET = "5ec2e7"
Y = torch.tensor([0, 1, 2, 1, 0])


class Dice(Defense):
    """A class at random for each image and draw; the image decides nothing but the logit's height."""

    card = Card("dice", "rolls")
    randomized = True

    def __init__(self) -> None:
        super().__init__(Recipe(), ImageSpec(1, 1, 3), nn.Identity())
        self.eval().requires_grad_(False)
        self.asked: list[tuple[int, Draws]] = []
        self.shown: list[tuple[Tensor, Draws]] = []

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        self.asked.append((len(x), draws))
        rolled = draws.at("roll").integers(3, 1)
        return torch.zeros(len(x), 3).scatter(1, rolled, 5.0) + x.flatten(1) * 0.1

    def reveal(self, x: Tensor, draws: Draws) -> None:
        self.shown.append((x, draws))

    def losses(self, batch):
        return {}


class Threshold(Dice):
    """Class 0 below 0.4, 1 below 0.6, else 2."""

    card = Card("threshold", "reads one pixel")
    randomized = False

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        self.asked.append((len(x), draws))
        pixel = x.flatten()
        return torch.stack([0.5 - pixel, 0 * pixel + 0.1, pixel - 0.5], 1) * 10


class Oracle(Threshold):
    """No defence that can be deployed: it is told the clean images."""

    card = Card("oracle", "is told")
    deployable = False


def streams(seed: int = 3) -> Streams:
    return Streams(ROWS, seed, CPU)


def images(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(-1, 1, 1, 1)


X = images(0.1, 0.5, 0.9, 0.2, 0.8)


def rolled(draws: Draws, repeats: int) -> Tensor:
    hidden = [draws.at(r).hidden(bytes.fromhex(SECRET)).at("roll").integers(3, 1) for r in range(repeats)]
    return torch.cat(hidden, 1)


def test_streams_have_the_names_that_stored_results_hang_on() -> None:
    named = Draws(torch.tensor(ROWS), 3)
    for found, expected in (
        (streams().clean, named.at("score", "clean")),
        (streams().adversarial, named.at("score", "adversarial")),
        (streams().crafting("pgd"), named.at("craft", "pgd")),
        (streams().attacked("pgd"), named.at("craft", "pgd").at("model")),
        (streams().samples, named),
    ):
        assert found.seed == expected.seed
        assert torch.equal(found.indices, expected.indices)
        assert found.indices.dtype == torch.int64


@given(st.integers(1, 7), st.integers(1, 4))
def test_each_column_is_a_fresh_draw_of_each_sample_in_every_batch(batch: int, repeats: int) -> None:
    """Also in the last batch, which is not full: no row is given the draws of another."""
    defense = Dice()
    judge = Judge(defense, Layout(batch=batch), SECRET)
    assert torch.equal(judge.score(X, streams().clean, repeats), rolled(streams().clean, repeats))
    assert all(rows <= batch for rows, _ in defense.asked)
    assert sum(rows for rows, _ in defense.asked) == 5 * repeats


def test_as_many_draws_go_together_as_a_batch_holds() -> None:
    defense = Dice()
    Judge(defense, Layout(batch=11), SECRET).score(X, streams().clean, 5)
    assert [rows for rows, _ in defense.asked] == [10, 10, 5]
    defense.asked.clear()
    Judge(defense, Layout(batch=4), SECRET).score(X[:1], Streams((4,), 3, CPU).clean, 4)
    assert [rows for rows, _ in defense.asked] == [4]
    defense.asked.clear()
    Judge(defense, Layout(batch=3), SECRET).score(X, streams().clean, 2)
    assert [rows for rows, _ in defense.asked] == [3, 3, 2, 2]


def test_clean_images_are_asked_about_once() -> None:
    defense = Dice()
    judge = Judge(defense, Layout(batch=10), SECRET)
    first = judge.clean(X, streams(), 2)
    assert torch.equal(first, rolled(streams().clean, 2))
    count = len(defense.asked)
    few = Streams((2, 9), 3, CPU)
    assert torch.equal(judge.clean(X[[2, 1]], few, 2), first[[2, 1]])
    assert len(defense.asked) == count
    for other in (streams(4), streams()):  # another seed, or another number of draws
        judge.clean(X, other, 2 if other.seed == 4 else 3)
    assert len(defense.asked) > count + 1
    assert not defense.shown
    some = Judge(Dice(), Layout(batch=10), SECRET)  # those that are new are asked about, whoever was asked before
    some.clean(X[[1]], Streams((9,), 3, CPU), 2)
    assert torch.equal(some.clean(X, streams(), 2), first)


def test_an_outcome_is_what_happened_to_each_image() -> None:
    judge = Judge(Threshold(), Layout(batch=2), SECRET)
    adversarial = images(0.1, 0.9, 0.7, 0.8, 0.3)
    crafted = Crafted(
        adversarial, torch.tensor([-1, 4, -1, 2, 7]), torch.arange(5.0).double(), torch.arange(5.0).double() * 2,
        distance=torch.arange(5.0).double() * 3,
    )  # fmt: skip
    found = judge.outcome(np.arange(5) + 10, X, Y, crafted, streams(), CELL)
    assert found.position.tolist() == [10, 11, 12, 13, 14]
    assert found.label.tolist() == Y.tolist()
    assert found.clean.tolist() == [[0], [1], [2], [0], [2]]
    assert found.adversarial.tolist() == [[0], [2], [2], [2], [0]]
    assert found.first_success.tolist() == [-1, 4, -1, 2, 7]
    np.testing.assert_allclose(found.linf, [0, 0.4, 0.2, 0.6, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.l2, [0, 0.4, 0.2, 0.6, 0.5], atol=1e-6)
    assert (found.linf.dtype, found.l2.dtype) == (np.float64, np.float64)
    assert (found.forwards.tolist(), found.backwards.tolist()) == ([0, 1, 2, 3, 4], [0, 2, 4, 6, 8])
    assert found.distance is not None
    assert found.distance.tolist() == [0, 3, 6, 9, 12]


def test_clean_and_adversarial_images_are_scored_in_draws_of_their_own() -> None:
    judge = Judge(Dice(), Layout(batch=10), SECRET)
    nothing = torch.zeros(5).double()
    found = judge.outcome(np.arange(5), X, Y, Crafted(X, -torch.ones(5), nothing, nothing), streams(), RANDOM)
    assert found.clean.tolist() == rolled(streams().clean, 10).tolist()
    assert found.adversarial.tolist() == rolled(streams().adversarial, 10).tolist()
    assert found.clean.tolist() != found.adversarial.tolist()
    assert found.distance is None


def test_lengths_are_over_all_pixels_of_an_image() -> None:
    class Wide(Threshold):
        def forward(self, x, draws=None):
            return x.flatten(1)[:, :3]

    wide = Wide()
    wide.images = ImageSpec(2, 2, 3)
    x = torch.zeros(2, 2, 2, 2)
    moved = x.clone()
    moved[0, 0, 0, 0], moved[0, 1, 1, 1], moved[1] = -0.3, 0.4, 0.1
    nothing = torch.zeros(2).double()
    crafted = Crafted(moved, -torch.ones(2), nothing, nothing)
    found = Judge(wide, Layout()).outcome(
        np.arange(2), x, torch.zeros(2, dtype=torch.int64), crafted, Streams((0, 1), 0, CPU), CELL
    )
    np.testing.assert_allclose(found.linf, [0.4, 0.1], atol=1e-7)
    np.testing.assert_allclose(found.l2, [0.5, 0.1 * 8**0.5], atol=1e-6)


def test_only_an_oracle_is_shown_clean_images_and_their_true_names() -> None:
    for defense in (Threshold(), Oracle()):
        judge = Judge(defense, Layout(batch=5), SECRET)
        judge.clean(X, streams(), 1)
        assert len(defense.shown) == (not defense.deployable)
        seen = defense.asked[-1][1]
        expected = list(ROWS) if isinstance(defense, Oracle) else [0] * 5
        assert seen.indices.tolist() == expected
        for shown, draws in defense.shown:
            assert torch.equal(shown, X)
            assert shown.data_ptr() != X.data_ptr()
            assert draws.indices.tolist() == list(ROWS)
            assert draws.seed == streams().samples.seed


def test_an_oracle_is_shown_the_clean_images_before_each_batch_is_scored() -> None:
    oracle, nothing = Oracle(), torch.zeros(5).double()
    judge = Judge(oracle, Layout(batch=5), SECRET)
    for _ in range(2):
        oracle.shown.clear()
        judge.outcome(np.arange(5), X, Y, Crafted(1 - X, -torch.ones(5), nothing, nothing), streams(), CELL)
        assert oracle.shown
        assert all(torch.equal(shown, X) for shown, _ in oracle.shown)


def test_what_a_defence_sees_of_its_draws() -> None:
    draws = streams().clean
    assert booth.veiled(Dice(), draws, secret.OPEN) is draws
    assert torch.equal(booth.veiled(Dice(), draws, SECRET).indices, draws.hidden(b"\x5e\xc2\xe7").indices)
    assert booth.veiled(Oracle(), draws, SECRET) is draws
    plain = booth.veiled(Threshold(), draws, SECRET)
    assert (plain.indices.tolist(), plain.seed) == ([0] * 5, 0)


def test_a_view_is_of_the_defence_with_its_batch_and_its_draws() -> None:
    judge = Judge(Dice(), Layout(batch=7), SECRET)
    view = judge.view(Y, streams().attacked("any"), eot=3)
    assert (view.randomized, view.batch, view.eot, view.walk, view.confirmation) == (True, 7, 3, None, None)
    assert view.draws.seed == streams().attacked("any").seed
    assert Judge(Threshold(), Layout()).view(Y, streams().clean, eot=3).eot == 1


class Steps(StepwisePurifier):
    """Halves the image twice; differentiated as if it had done nothing."""

    card = Card("steps", "halves twice")
    length = 2

    def __init__(self) -> None:
        super().__init__(Recipe(), ImageSpec(1, 1, 3), Slope())
        self.eval().requires_grad_(False)
        self.layouts: list[bool] = []

    def step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        return state / 2

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        self.layouts.append(x.is_contiguous(memory_format=torch.channels_last))
        return super().forward(x, draws)

    def losses(self, batch):
        return {}


class Slope(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0 * x.flatten(1)[:, 0], x.flatten(1)[:, 0], 0 * x.flatten(1)[:, 0] - 1], 1)


def cell_of(stand_in: str | None = None, precision: str = "float32", eot: int = 1):
    view = replace(CELL.view, stand_in=stand_in)
    return replace(CELL, view=view, search_precision=precision, eot=eot)


@pytest.mark.parametrize(("stand_in", "slope"), [(None, 0.25), ("identity", 1.0)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cell_is_searched_through_what_it_names(stand_in: str | None, slope: float, precision: str) -> None:
    judge = Judge(Steps(), Layout(batch=2))
    view = judge.searched(cell_of(stand_in, precision), X, Y, streams().attacked("any"))
    gradient, _, logits = view.gradient(X, lambda z: z[:, 1])
    torch.testing.assert_close(gradient, torch.full_like(X, slope), rtol=1e-2, atol=0)
    torch.testing.assert_close(logits[:, 1], X.flatten() / 4, rtol=1e-2, atol=0)
    assert (view.confirmation is None) == (precision == "float32")
    assert (view.walk is None) == (stand_in is not None)
    if view.confirmation is not None:
        assert view.confirmation.batch == 2
        assert view.confirmation.threat == CELL.threat


def test_a_randomised_defence_has_its_draws_averaged_and_nothing_confirmed() -> None:
    view = Judge(Dice(), Layout()).searched(cell_of(None, "bfloat16", 3), X, Y, streams().attacked("any"))
    assert (view.eot, view.confirmation) == (3, None)


def test_a_defence_that_works_in_steps_shows_them() -> None:
    judge = Judge(Steps(), Layout(batch=5))
    walk = judge.walk()
    assert walk is not None
    trail = walk(X, streams().clean)
    torch.testing.assert_close(trail.states[:, :, 0, 0, 0], torch.stack([X.flatten() / 2, X.flatten() / 4], 1))
    torch.testing.assert_close(trail.faithful, torch.stack([X, X], 1))
    torch.testing.assert_close(trail.logits[:, 1], X.flatten() / 4)
    assert Judge(Threshold(), Layout()).walk() is None


def test_steps_that_are_no_tensors_are_the_defence_s_fault() -> None:
    class Odd(Steps):
        card = Card("odd", "shows no states")

        def trail(self, x, draws):
            return Trail(x.flatten(1), [x], x)

    walk = Judge(Odd(), Layout(batch=5)).walk()
    assert walk is not None
    with pytest.raises(DefenseError, match="defence odd"):
        walk(X, streams().clean)


@pytest.mark.parametrize("last", [True, False])
def test_a_defence_is_handed_the_layout_that_it_runs_in(last: bool) -> None:
    defense = Steps()
    x = torch.rand(2, 3, 4, 4)
    judge = Judge(defense, Layout(channels_last=last, batch=2))
    for ask in (judge.ask, judge.without_gradient, judge.through("identity")):
        ask(x, Draws(torch.arange(2)))
    assert defense.layouts == [last] * len(defense.layouts)
    assert len(defense.layouts) >= 2


def test_without_a_gradient_the_answers_are_the_same() -> None:
    judge = Judge(Threshold(), Layout(batch=5), SECRET)
    said = judge.without_gradient(X, streams().clean)
    assert torch.equal(said, judge.ask(X, streams().clean))
    assert not said.requires_grad


@given(st.integers(0, 30), st.integers(1, 9))
def test_parts_cover_every_row_once(n: int, size: int) -> None:
    parts = [list(range(n))[part] for part in slices(n, size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert all(len(part) == size for part in parts[:-1])


PROBABILITIES = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (PROBABILITIES, "probabilities"),
        (PROBABILITIES + torch.tensor([3e-6, 0, 0]), "probabilities"),  # as float32 rounds a softmax
        (PROBABILITIES + torch.tensor([3e-5, 0, 0]), ""),
        (PROBABILITIES + torch.tensor([3e-5, 0, -3e-5]), ""),  # one is below 0
        (torch.tensor([[0.5, 0.5, 0.0], [1.5, -0.5, 0.0]]), ""),
        (torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.2]]), ""),
        (torch.full((2, 3), 0.9), ""),
        (torch.tensor([[0.9, 0.9, -0.8], [0.2, 0.3, 0.5]]), ""),
        (torch.tensor([[1.0, 2.0, torch.inf], [0.0, 0.0, 9.0]]), "NaN or infinity"),
        (torch.tensor([[1.0, 2.0, torch.nan], [0.0, 0.0, 9.0]]), "NaN or infinity"),
        (torch.zeros(2, 4), "shape"),
        (torch.zeros(1, 3), "shape"),
    ],
)
def test_what_is_no_logits_is_refused(logits: Tensor, said: str) -> None:
    if said:
        with pytest.raises(DefenseError, match=f"defence mine returned .*{said}"):
            check_logits(logits, 2, 3, "mine")
    else:
        check_logits(logits, 2, 3, "mine")


def test_a_transfer_is_described_by_what_was_right_before() -> None:
    substitute, target = Judge(Threshold(), Layout(batch=2)), Judge(Oracle(), Layout(batch=2))

    class Low(Threshold):
        def forward(self, x, draws=None):
            return torch.stack([1 + 0 * x.flatten(), x.flatten(), 0 * x.flatten()], 1)

    adversarial = images(0.5, 0.5, 0.1, 0.9, 0.8)
    # The substitute is right about the first three of five; two of these three turn.
    found = transfer.describe(substitute, Judge(Low(), Layout()), X, adversarial, Y)
    assert found == pytest.approx({"source_accuracy": 0.6, "source_success": 2 / 3, "agreement": 0.4})
    same = transfer.describe(substitute, target, X, X, Y)
    assert same == pytest.approx({"source_accuracy": 0.6, "source_success": 0.0, "agreement": 1.0})
    never = transfer.describe(
        substitute, target, X, adversarial, (substitute.ask(X, streams().clean).argmax(1) + 1) % 3
    )
    assert (never["source_accuracy"], never["source_success"]) == (0.0, 0.0)


def test_an_oracle_is_shown_what_it_is_described_on() -> None:
    class Told(Oracle):
        def forward(self, x, draws=None):
            (shown, names) = self.shown[-1]
            assert draws.indices.tolist() == names.indices.tolist() == list(range(len(x)))
            return super().forward(shown, draws)

    found = transfer.describe(Judge(Told(), Layout()), Judge(Threshold(), Layout()), X, 1 - X, Y)
    assert found == pytest.approx({"source_accuracy": 0.6, "source_success": 2 / 3, "agreement": 1.0})
