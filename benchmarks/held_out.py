"""What a recipe leaves of training images it has not seen: the numbers that comments on recipes quote.

    python benchmarks/held_out.py pgd-at epochs=40
    python benchmarks/held_out.py pcl optimizer=adam near_rate=0.1 --precision bfloat16
    python benchmarks/held_out.py grad-reg --dataset mnist --images 20000
    python benchmarks/held_out.py pssr:cae pixel=sum --dataset cifar10 --classifier network=resnet18-16

A purifier's classifier is trained on the same images first, with the settings of `--classifier`. 287 of the 1,437
training images of digits are held out, 1,000 of other data sets; the test images are not read.
"""

from __future__ import annotations

import argparse

import torch

from benchbox import Defense, Draws, ThreatModel, View
from benchbox.cli.words import scalar
from benchbox.contract import registry
from benchbox.data.dataset import load
from benchbox.training.loop import fit

HELD_OUT = {"digits": 287}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("defense")
    parser.add_argument("settings", nargs="*", metavar="FIELD=VALUE")
    parser.add_argument("--classifier", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--images", type=int, help="to train on; all that are not held out if not given")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    fields, below = settings(asked.settings), settings(asked.classifier)
    dataset = load(asked.dataset)
    last = HELD_OUT.get(asked.dataset, 1000)
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(1))
    train, held_out = dataset.train.rows(order[:-last][: asked.images]), dataset.train.rows(order[-last:])
    threat = ThreatModel(dataset.norm, dataset.epsilon)
    where = torch.device(asked.device)

    def trained(name: str, **fields: object) -> Defense:
        cls = registry.defenses().get(name).cls
        recipe = cls.configure(dataset.family, dataset.name, **fields)
        base_name = recipe.base or cls.base
        base = trained(base_name, **below).classifier if base_name else None
        torch.manual_seed(0)
        defense = cls(recipe, dataset.spec, base)
        fit(defense, recipe, train, threat=threat, seed=0, device=where, precision=asked.precision)
        return defense.eval().requires_grad_(False)

    defense = trained(asked.defense, **fields)
    x, y = (t.to(where) for t in held_out.batch(torch.arange(last)))
    draws = Draws(torch.arange(last, device=where))
    pgd = registry.attacks().get("pgd").cls.configure(dataset.family, dataset.name, steps=20)
    # What a gray-box attacker knows: without a purifier, the defence itself.
    attacked = pgd(View(lambda x, _: defense.classifier(x), y, draws), x, y, threat, draws).x
    bare = 100 * float((defense.classifier(x).argmax(1) == y).float().mean())
    print(f"the classifier alone, clean: {bare:.1f} %")
    for name, images in (("clean", x), ("gray-box PGD-20", attacked)):
        print(f"{name}: {100 * float((defense(images, draws).argmax(1) == y).float().mean()):.1f} %")


def settings(texts: list[str]) -> dict[str, object]:
    """FIELD=VALUE by FIELD."""
    return {name: scalar(value) for name, _, value in (text.partition("=") for text in texts)}


if __name__ == "__main__":
    main()
