"""Records as text that is equal where they are, and the digest that stands for it in keys and seals."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# Once: `json.dumps` builds an encoder at every call that asks for more than its defaults.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(record: Any) -> str:
    """JSON with sorted keys and no white space: equal records have equal text.

    What UTF-8 cannot say (a file's name may hold any byte) is escaped.
    """
    return _ENCODER.encode(record).encode("utf-8", "backslashreplace").decode()


def digest(record: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(record).encode()).hexdigest()
