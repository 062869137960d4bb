"""What adversarial images take on the disk, beside the layout of before: one compressed row of float32 an image.

    python benchmarks/adversarials.py --dataset mnist --images 500

Made by real attacks on a trained classifier, packed as the store packs them, unpacked, and compared to the bit.
What is counted are the images, what making them took and, of before, a SHA-256 an image; keys, seals and what the
database needs a row are not. Pixels that no other pixel equals owe it to a random start, whose mantissas nothing
makes smaller.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
from subject import Subject, trained

from benchbox.contract import registry
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.session import Session, Settings
from benchbox.store import Adversarials, arrays

#: Of the bytes of before.
GOAL = 0.4
#: Images that are stored together: what a network is asked about at once.
BATCH = 125


def before(x: np.ndarray) -> int:
    """Bytes of images as they were kept: each by itself, as float32, compressed; SHA-256 and counts beside."""
    return sum(len(zlib.compress(image.astype("<f4").tobytes())) + 64 + 3 * 8 for image in x)


def now(made: Adversarials) -> int:
    """Bytes of images as they are kept; they come back to the bit."""
    packed = made.packed
    back = arrays.unpack(packed["images"])
    for name, array in made.columns().items():
        if name != "position":
            assert np.array_equal(array, back[name]), name
            assert array.dtype == back[name].dtype, name
    return sum(map(len, packed.values()))


def random(x: np.ndarray) -> float:
    """Bytes of mantissas that no other pixel has: a random start leaves them, and nothing makes them smaller."""
    _, counts = np.unique(x, return_counts=True)
    return float((counts == 1).sum()) * 23 / 8


def crafted(subject: Subject, name: str) -> Adversarials:
    """What an attack makes of the images."""
    n, attack = len(subject.y), registry.attacks().get(name).cls.configure(subject.dataset.family)
    judge, streams = Judge(subject.network, subject.tuned()), Streams(range(n), 0, subject.x.device)
    view = judge.view(subject.y, streams.attacked(name))
    made = attack(view, subject.x, subject.y, subject.threat, streams.crafting(name))
    counts = (made.first_success, made.forwards, made.backwards)
    return Adversarials("", np.arange(n), made.x.numpy(), *(count.numpy() for count in counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--images", type=int, default=BATCH)
    parser.add_argument("--attacks", nargs="+", default=["fgsm", "bim", "mim", "pgd"])
    parser.add_argument("--epochs", type=int, help="of the training, where the recipe's take too long")
    parser.add_argument("--store", type=Path, default=Path("results"), help="its folder artifacts has the weights")
    asked = parser.parse_args()
    session = Session(
        registry.defenses(), registry.attacks(), Settings(artifacts=asked.store / "artifacts", device="cpu")
    )
    few = {"epochs": asked.epochs} if asked.epochs else {}
    subject = trained(session, "none", asked.dataset, asked.images, **few)
    old = new = 0
    for name in asked.attacks:
        made = crafted(subject, name)
        parts = [made.rows(np.arange(i, min(i + BATCH, len(made)))) for i in range(0, len(made), BATCH)]
        was, is_now = before(made.x), sum(map(now, parts))
        old, new = old + was, new + is_now
        print(
            f"{asked.dataset}, {name}: {is_now / len(made):.0f} bytes an image, before {was / len(made):.0f}",
            flush=True,
        )
    met = "met" if new / old <= GOAL else "missed"
    print(f"together {new / old:.2f} of the bytes of before, exactly restored; goal {GOAL}: {met}")


if __name__ == "__main__":
    main()
