"""What was measured, kept: the only place that knows SQL. Nothing here imports torch."""

from benchbox.store.adversarials import Adversarials
from benchbox.store.store import RunRecord, Store

__all__ = ["Adversarials", "RunRecord", "Store"]
