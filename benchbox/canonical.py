"""Records as text that is equal where they are, and the digest that stands for it in keys and seals."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(record: Any) -> str:
    """JSON with sorted keys and no white space: equal records have equal text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(record: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(record).encode()).hexdigest()
