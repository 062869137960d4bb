"""What AToP sees while it is fine-tuned on MNIST, chosen on training images that were held out.

    python benchmarks/atop_choice.py --set consistency=clean --set consistency=adversarial

One training for each `--set`, in bfloat16, of 20,000 images and four epochs, before a classifier that saw 50,000;
after every epoch, percent right of 1,000 other training images, as they are and under FGSM on the classifier
alone, expected over two draws. Some eight minutes of a core each. No test image is read.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from benchbox import Defense, Draws, ThreatModel
from benchbox.contract import registry
from benchbox.data.dataset import Dataset, load
from benchbox.training.loop import Progress, fit

HELD_OUT, DRAWS, DEVICE = slice(50_000, 51_000), 2, torch.device("cpu")


def classifier(dataset: Dataset, threat: ThreatModel, images: int, epochs: int) -> nn.Module:
    """A base that saw none of what is held out."""
    cls = registry.defenses().get("none").cls
    recipe = cls.configure(dataset.family, dataset.name, epochs=epochs)
    torch.manual_seed(0)
    base = cls(recipe, dataset.spec)
    few = dataset.train.rows(torch.arange(images))
    fit(base, recipe, few, threat=threat, seed=0, device=DEVICE, precision="bfloat16")
    trained: nn.Module = base.classifier.eval().requires_grad_(False)
    return trained


def fgsm(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """One step on the classifier alone."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y), leaf)
    return (x + epsilon * gradient.sign()).clamp(0, 1)


@torch.no_grad()
def right(defense: Defense, x: Tensor, y: Tensor) -> float:
    """Percent, expected over the draws; the mode is put back."""
    training = defense.training
    defense.eval()
    draws = Draws(torch.arange(len(x)), 7)
    found = [(defense(x, draws.at(i)).argmax(1) == y).float().mean() for i in range(DRAWS)]
    defense.train(training)
    return 100 * float(torch.stack(found).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--base", type=int, nargs=2, default=(50_000, 3), metavar=("IMAGES", "EPOCHS"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load("mnist")
    threat = ThreatModel(dataset.norm, dataset.epsilon)
    base = classifier(dataset, threat, *asked.base)
    x, y = dataset.train.batch(torch.arange(HELD_OUT.start, HELD_OUT.stop))
    attacked = fgsm(base, x, y, threat.epsilon)
    cls = registry.defenses().get("atop").cls
    for words in asked.set or [""]:
        fields = dict([words.split("=")]) if words else {}
        recipe = cls.configure(dataset.family, dataset.name, epochs=asked.epochs, **fields)
        torch.manual_seed(0)
        defense = cls(recipe, dataset.spec, base)

        def report(progress: Progress, defense: Defense = defense, words: str = words) -> None:
            if progress.phase == "train" and progress.done * asked.epochs == progress.epoch * progress.total:
                clean, under = right(defense, x, y), right(defense, attacked, y)
                print(f"{words} epoch {progress.epoch}: clean {clean:.1f}, FGSM {under:.1f}", flush=True)

        few = dataset.train.rows(torch.arange(asked.train))
        fit(
            defense, recipe, few,
            threat=threat, seed=0, device=DEVICE, precision="bfloat16", report=report,
        )  # fmt: skip


if __name__ == "__main__":
    main()
