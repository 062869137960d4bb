"""The figures of the PSSR paper that need a trained model: what is attacked, what is drawn, what is said of it.

Any purifier can stand in them; those that show a surgery need one that says which pixels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchbox.analysis import papers
from benchbox.analysis.score import union
from benchbox.errors import RequestError
from benchbox.figures import pictures, scatter, shares, specimens
from benchbox.figures.specimens import MASK, Specimens
from benchbox.figures.style import Drawing, ball, file_name

if TYPE_CHECKING:
    from torch import Tensor

    from benchbox.contract.defense import Defense
    from benchbox.data.dataset import Dataset
    from benchbox.domain import ThreatModel
    from benchbox.engine.session import Session


@dataclass(frozen=True)
class Subject:
    """A trained defence and what it is shown.

    Attributes:
        session: Where attacks come from.
        label: What the defence is called.
        defense: Frozen, in evaluation mode, on the CPU.
        seed: Of its training.
        dataset: The images.
        threat: The ball.
        attacks: Names; empty for those of the paper's figure.
        samples: How many images; None for the figure's usual.
    """

    session: Session
    label: str
    defense: Defense
    seed: int
    dataset: Dataset
    threat: ThreatModel
    attacks: tuple[str, ...] = ()
    samples: int | None = None

    def first(self, usual: int, *attacks: str) -> Specimens:
        """The first test images, under the attacks asked for or else these."""
        n = min(self.samples or usual, len(self.dataset.test))
        return self._attacked(tuple(range(n)), attacks)

    def one_of_each(self, usual: int, *attacks: str) -> Specimens:
        """The first test image of each of the first classes, likewise."""
        return self._attacked(specimens.one_of_each_class(self.dataset, self.samples or usual), attacks)

    def _attacked(self, indices: tuple[int, ...], attacks: tuple[str, ...]) -> Specimens:
        names = self.attacks or attacks
        return specimens.attacked(self.session, self.dataset, self.defense, self.threat, indices, names)

    def named(self, figure: str) -> str:
        """Of the files."""
        return file_name(figure, self.dataset.name, ball(self.threat), self.label)

    def said(self, made: Specimens, which: str) -> str:
        """Of what images, with what seeds."""
        attacks = ", ".join(made.attacked)
        return (
            f"{self.dataset.name}, {self.threat}, n = {len(made.indices)}: {which}. {self.label}, training seed "
            f"{self.seed}; {attacks} on the bare classifier (gray-box), attack seed 0."
        )


def decomposition(subject: Subject) -> Drawing:
    """Fig. 1: the classifier under the whole perturbation, under its salient and under its trivial part."""
    made = subject.first(500, *papers.drawn("decomposition"))
    classifier = subject.defense.classifier
    found = {}
    for attack, x_adv in made.attacked.items():
        mask = _stage(subject, x_adv, made, MASK)
        parts = specimens.decomposed(made.x, x_adv, mask)
        found[attack] = {part: union([specimens.right(classifier, x, made.label)]) for part, x in parts.items()}
    clean = union([specimens.right(classifier, made.x, made.label)])
    caption = (
        "The classifier without defence under the full perturbation, under its salient part and under its trivial "
        "part alone, each added to the clean image (Fig. 1 of the PSSR paper).",
        subject.said(made, "the first test images"),
        f"Which pixels are salient is what {subject.label} says of the attacked image. Bars: 95 % intervals.",
    )
    title = f"Parts of an attack, {subject.dataset.name}"
    return shares.draw(subject.named("decomposition"), title, found, clean, caption)


def surgery(subject: Subject) -> Drawing:
    """Fig. 2 and 8: clean, attacked, mask, trivial component, regenerated."""
    made = subject.one_of_each(4, *papers.drawn("surgery"))
    classifier = subject.defense.classifier
    columns = [specimens.seen(classifier, "clean", made.x)]
    for attack, x_adv in made.attacked.items():
        columns.append(specimens.seen(classifier, attack, x_adv))
        for name, x in specimens.stages(subject.defense, x_adv, made.indices).items():
            mask = x.shape[1] != made.x.shape[1] or name == MASK
            columns.append(specimens.Stage(name, x.numpy()) if mask else specimens.seen(classifier, name, x))
    caption = (
        f"Images on their way through {subject.label} (Fig. 2 and 8 of the PSSR paper). Below each: what the bare "
        "classifier sees in it, with its confidence; ✓ the true class. Mask: white pixels stay.",
        subject.said(made, "the first test image of each of the first classes"),
    )
    return _pictures(subject, "surgery", f"What {subject.label} does to an image", columns, made, caption)


def attention(subject: Subject) -> Drawing:
    """Fig. 10a: clean, attacked and purified images, each with its Grad-CAM."""
    made = subject.one_of_each(3, *papers.drawn("attention"))
    classifier = subject.defense.classifier
    shown = {"clean": made.x}
    for attack, x_adv in made.attacked.items():
        last = list(specimens.stages(subject.defense, x_adv, made.indices).values())[-1]
        shown |= {attack: x_adv, f"{attack}, purified": last}
    columns = []
    for name, x in shown.items():
        columns += [
            specimens.seen(classifier, name, x),
            specimens.Stage("Grad-CAM", x.numpy(), heat=specimens.grad_cam(classifier, x)),
        ]
    caption = (
        f"Images clean, attacked and purified by {subject.label}, and where the classifier's last convolution "
        "finds the class it predicts (Grad-CAM; Fig. 10a of the PSSR paper). Yellow is more.",
        subject.said(made, "the first test image of each of the first classes"),
    )
    return _pictures(
        subject, "attention", f"Where the classifier looks, with {subject.label}", columns, made, caption
    )


def features(subject: Subject) -> Drawing:
    """Fig. 9: t-SNE of penultimate features, clean and attacked, without and with the defence."""
    made = subject.first(400, *papers.drawn("features"))
    classifier = subject.defense.classifier
    images = {"clean": made.x, **made.attacked}
    bare = [specimens.penultimate(classifier, x) for x in images.values()]
    purified = [
        specimens.penultimate(classifier, list(specimens.stages(subject.defense, x, made.indices).values())[-1])
        for x in images.values()
    ]
    clouds = specimens.t_sne([*bare, *purified])
    rows = [("no defence", clouds[: len(bare)]), (subject.label, clouds[len(bare) :])]
    caption = (
        "t-SNE of what the classifier's last layer is given, each panel by itself; colours and numbers: true "
        "classes (Fig. 9 of the PSSR paper).",
        subject.said(made, "the first test images"),
    )
    title = f"Features, {subject.dataset.name}"
    return scatter.draw(subject.named("features"), title, rows, list(images), made.label.numpy(), caption)


#: Each figure with what it shows.
FIGURES: Mapping[str, Callable[[Subject], Drawing]] = {
    "decomposition": decomposition,
    "surgery": surgery,
    "features": features,
    "attention": attention,
}


def _pictures(
    subject: Subject,
    name: str,
    title: str,
    columns: list[specimens.Stage],
    made: Specimens,
    caption: tuple[str, ...],
) -> Drawing:
    names = [str(k) for k in range(subject.dataset.spec.classes)]
    return pictures.draw(subject.named(name), title, columns, made.label.numpy(), names, caption)


def _stage(subject: Subject, x: Tensor, made: Specimens, name: str) -> Tensor:
    found = specimens.stages(subject.defense, x, made.indices)
    if name not in found:
        raise RequestError(f"{subject.label} has no {name} (it has {', '.join(found)}); name another --defense")
    return found[name]
