"""The contract is probed before a defence is attacked: what breaks it is refused with a remedy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbox import Batch, Card, Defense, Draws, Losses, Recipe
from benchbox.cli import main
from benchbox.domain import ImageSpec
from benchbox.draws import sample_draws
from benchbox.engine.judge import Judge
from benchbox.engine.vetting import require_classifier, vet
from benchbox.errors import DefenseError
from benchbox.training.layout import Layout

X = sample_draws(8, 3).uniform(1, 8, 8, low=0.1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().flatten(1))


class Asked(Defense):
    card = Card("asked", "a network behind something")

    def before(self, x: Tensor, draws: Draws) -> Tensor:
        return x

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.classifier(self.before(x, draws or sample_draws(len(x))))

    def losses(self, batch: Batch) -> Losses:
        return {}


def judged(before=None, net: type[nn.Module] = Net, randomized: bool = False) -> Judge:
    cls = type("Variant", (Asked,), {"randomized": randomized, **({"before": before} if before else {})})
    defense = cls(Recipe(), ImageSpec(1, 8, 10))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        defense.classifier = net()
    return Judge(defense.eval().requires_grad_(False), Layout())


class Training(Net):
    def train(self, mode: bool = True) -> Training:
        return super().train(True)


def dropout(self, x, draws):
    return F.dropout(x, 0.3, training=True)


def in_place(self, x, draws):
    return x.sub_(0.5).div_(0.5)


def noise(self, x, draws):
    return x + 0.3 * draws.normal(*x.shape[1:])


def own_noise(self, x, draws):
    return x + 0.3 * torch.randn_like(x)


def centred(self, x, draws):
    return x - x.mean(0)


def brightest(self, x, draws):
    return x / x.amax()


def alarmed(self, x, draws):
    return x.round() if torch.is_grad_enabled() and x.requires_grad else x


def pairs(self, x, draws):
    return x.view(len(x) // 2, 2, *x.shape[1:]).flatten(0, 1)


def nan_gradient(self, x, draws):
    return x + 0 * (x - x).abs().sqrt()


def nan_where_dark(self, x, draws):
    return (x.round() * x).sqrt()


def no_gradient(self, x, draws):
    return x.detach()


REFUSED = [
    (None, Training, False, "keeps classifier.bn (BatchNorm2d) in training mode after eval()"),
    (dropout, Net, False, "answers otherwise when asked again (other logits for 8 of 8 images, another class for"),
    (own_noise, Net, False, "derive a benchbox.Defense with randomized = True"),
    (own_noise, Net, True, "when asked again in the same draws"),
    (centred, Net, False, "answers otherwise for an image alone than in a batch (other logits for 4 of 4"),
    (brightest, Net, False, "answers otherwise for an image alone"),
    (alarmed, Net, False, "answers otherwise where a gradient is asked for"),
    (pairs, Net, False, "fails on an image alone ("),
]


@pytest.mark.parametrize(("before", "net", "randomized", "said"), REFUSED)
def test_what_breaks_the_contract_is_refused_in_one_line(before, net, randomized, said):
    judge = judged(before, net, randomized)
    with pytest.raises(DefenseError) as error:
        vet(judge, X, sample_draws(8))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)  # what was seen; what to do


@pytest.mark.parametrize(("before", "randomized"), [(None, False), (in_place, False), (noise, True)])
def test_what_keeps_the_contract_passes_and_its_images_stay(before, randomized):
    kept = X.clone()
    assert vet(judged(before, randomized=randomized), X, sample_draws(8)) == {}
    assert torch.equal(X, kept)


def test_a_gradient_that_is_missing_or_partly_not_a_number_is_remarked():
    assert "there is none" in vet(judged(no_gradient), X, sample_draws(8))["gradient"]
    assert "not finite at 100% of the pixels" in vet(judged(nan_gradient), X, sample_draws(8))["gradient"]
    dark = X.clone()
    dark[:, :, :2] = 0
    assert "in 8 of 8 images" in vet(judged(nan_where_dark), dark, sample_draws(8))["gradient"]


def test_who_counts_its_calls_is_not_said_to_look_at_the_batch() -> None:
    calls = []

    def counting(self, x, draws):
        calls.append(len(x))
        return x if len(calls) % 7 in (1, 2, 3) else x.flip(3)

    with pytest.raises(DefenseError, match="answers otherwise when asked again"):
        vet(judged(counting), X, sample_draws(len(X)))


class Trunk(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :32]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Headed(Asked):
    """Its classifier is the trunk alone."""

    base = "none"

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x.flatten(1)[:, :10] - 0.5


@pytest.mark.parametrize(
    ("classifier", "said"),
    [
        (Trunk(), "the classifier of defence asked returned shape (8, 32) for 8 images and 10 classes"),
        (Pair(), "the classifier of defence asked returned tuple for 8 images"),
        (nn.ModuleList([Net()]), "the classifier of defence asked fails on images (NotImplementedError"),
        (nn.Linear(3, 10), "the classifier of defence asked fails on images (RuntimeError"),
        (None, "defence asked has no classifier"),
    ],
)
def test_a_classifier_that_returns_no_logits_is_refused_in_one_line(classifier, said):
    defense = Headed(Recipe(), ImageSpec(1, 8, 10))
    if classifier is not None:
        defense.classifier = classifier
    defense.eval()
    for refuse in (
        lambda: require_classifier(defense, X),
        lambda: vet(Judge(defense, Layout()), X, sample_draws(8)),
    ):
        with pytest.raises(DefenseError) as error:
            refuse()
        assert str(error.value).startswith(said)
        assert "let self.classifier return logits of shape (8, 10)" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_classifier_is_asked_in_the_type_of_its_weights():
    defense = Headed(Recipe(), ImageSpec(1, 8, 10))
    defense.classifier = Net().double()
    require_classifier(defense.eval(), X)


def test_what_stands_on_nothing_may_keep_parts_in_its_classifier_while_it_is_run():
    defense = type("Alone", (Headed,), {"base": None})(Recipe(), ImageSpec(1, 8, 10))
    defense.classifier = Trunk()
    assert vet(Judge(defense.eval(), Layout()), X, sample_draws(8)) == {}


PLUGIN = '''
import torch
from benchbox import Card, Defense

class Trunk(Defense):
    """Its classifier is half of it."""
    card = Card("trunk", "features, and a head beside them")
    recipes = {"digits": {"epochs": 1}}

    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 32)))
        self.head = torch.nn.Linear(32, images.classes)

    def forward(self, x, draws=None):
        return self.head(self.classifier(x))

    def losses(self, batch):
        return {"classifier": {"loss": torch.nn.functional.cross_entropy(self(batch.x), batch.y)}}
'''


def test_an_audit_of_what_has_no_classifier_ends_in_one_line_before_it_asks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    assert main(["audit", "mine.py:Trunk", "--dataset", "digits", "--samples", "2"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the classifier of defence trunk returned shape (2, 32) for 2 images and 10 classes; let self." in last
    assert "probing" not in last
