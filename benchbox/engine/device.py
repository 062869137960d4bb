"""Where the tensors live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchbox.errors import RequestError

if TYPE_CHECKING:
    import torch

#: Kinds of devices that torch may have, as far as any is of use here.
KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "privateuseone")


def check(name: str) -> None:
    """Refuse what is the name of no device on any machine; needs no torch.

    Raises:
        RequestError: It is none.
    """
    kind, colon, number = name.partition(":")
    if kind not in KINDS or (colon and not number.isdigit()):
        raise _absent(name)


def choose(name: str | None = None) -> torch.device:
    """The device asked for, or else the first GPU, or else the CPU.

    Raises:
        RequestError: The device is not there.
    """
    import torch

    # TF32 keeps ten bits of the mantissa: enough to train, not to say whether a sample is misclassified.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # What is written there has to be read back: "meta" holds nothing.
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        raise _absent(name) from error
    return torch.device(name)


def describe(device: torch.device) -> str:
    """Its name, for the record: "cpu, 2 threads" or "NVIDIA H200"."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _absent(name: str) -> RequestError:
    return RequestError(f"device {name!r} is not available here; use --device cpu")
