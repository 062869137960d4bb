"""What adversarial images take on the disk, beside the layout of before: one compressed row of float32 an image.

    python benchmarks/adversarials.py --dataset mnist --images 500

Made by real attacks on a trained classifier, packed as the store packs them, unpacked, and compared to the bit.
What is counted are the images, the clean ones that they are kept against (once, as a store has them once for all
attacks and defences), what making them took and, of before, a SHA-256 an image; keys, seals and what the database
needs a row are not. The milliseconds are CPU time for a batch, the clean images packed before.
"""

from __future__ import annotations

import argparse
import pickle
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from subject import Subject, trained

from benchbox.contract import registry
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.session import Session, Settings
from benchbox.store import Adversarials, clean_images

#: Of the bytes of before.
GOAL = 0.4
#: Images that are stored together: what a network is asked about at once.
BATCH = 125


def before(x: np.ndarray) -> int:
    """Bytes of images as they were kept: each by itself, as float32, compressed; SHA-256 and counts beside."""
    return sum(len(zlib.compress(image.astype("<f4").tobytes())) + 64 + 3 * 8 for image in x)


def now(made: Adversarials) -> int:
    """Bytes of images as they are kept, beside the clean ones; they come back to the bit."""
    packed = made.as_packed()
    back = pickle.loads(pickle.dumps(packed))
    for name, array in made.columns().items():
        assert np.array_equal(array, getattr(back, name)), name
        assert array.dtype == getattr(back, name).dtype, name
    return sum(map(len, packed.packed.values()))


def crafted(subject: Subject, name: str) -> Adversarials:
    """What an attack makes of the images."""
    n, attack = len(subject.y), registry.attacks().get(name).cls.configure(subject.dataset.family)
    judge, streams = Judge(subject.network, subject.tuned()), Streams(range(n), 0, subject.x.device)
    view = judge.view(subject.y, streams.attacked(name))
    made = attack(view, subject.x, subject.y, subject.threat, streams.crafting(name))
    counts = (made.first_success, made.forwards, made.backwards)
    return Adversarials("", np.arange(n), made.x.numpy(), *(count.numpy() for count in counts))


def batches(made: Adversarials, x: np.ndarray) -> list[Adversarials]:
    """As a run hands them to the store; x are the clean images."""
    parts = [np.arange(i, min(i + BATCH, len(made))) for i in range(0, len(made), BATCH)]
    return [replace(made.rows(at), clean=clean_images("clean/", at, x[at])) for at in parts]


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
    old = new = clean = 0
    for name in asked.attacks:
        made = crafted(subject, name)
        parts = batches(made, subject.x.numpy())
        clean = sum(now(part.clean) for part in parts if part.clean is not None)
        start = time.process_time()
        for part in parts:
            assert part.packed
        took = 1000 * (time.process_time() - start) / len(parts)
        was, is_now = before(made.x), sum(map(now, parts))
        old, new = old + was, new + is_now
        print(
            f"{asked.dataset}, {name}: {is_now / len(made):.0f} bytes an image, before {was / len(made):.0f} "
            f"({took:.1f} ms a batch of {BATCH})",
            flush=True,
        )
    new += clean
    print(f"{asked.dataset}, the clean images, once: {clean / asked.images:.0f} bytes an image")
    met = "met" if new / old <= GOAL else "missed"
    print(f"together {new / old:.2f} of the bytes of before, exactly restored; goal {GOAL}: {met}")


if __name__ == "__main__":
    main()
