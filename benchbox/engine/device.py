"""Where the tensors live."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from benchbox.errors import RequestError

if TYPE_CHECKING:
    import torch

#: Kinds of devices that torch may have, as far as any is of use here.
KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "privateuseone")


#: What `mallopt` calls the free room that a heap may end with, and the size from which memory is no part
#: of one; and the most that it takes of each.
_TRIM, _MMAP = (-1, 2**31 - 1), (-3, 32 * 2**20)


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
    _keep_freed_memory()
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # What is written there has to be read back: "meta" holds nothing.
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        raise _absent(name) from error
    return torch.device(name)


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to 2 GiB, where it would hand it back to the system.

    A pass frees what the next one asks for. Handed back, each page comes anew and filled with zeros, up to
    a tenth of a training or an attack on a small network. MALLOC_TRIM_THRESHOLD_ is not overruled.
    """
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's alone
        for which, most in (_TRIM, _MMAP):
            library.mallopt(which, most)


def describe(device: torch.device) -> str:
    """Its name, for the record: "cpu, 2 threads" or "NVIDIA H200"."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _absent(name: str) -> RequestError:
    return RequestError(f"device {name!r} is not available here; use --device cpu")
