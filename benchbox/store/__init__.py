"""What was measured, kept: the only place that knows SQL. Nothing here imports torch."""

from benchbox.store.adversarials import Adversarials
from benchbox.store.cells import CellRecord
from benchbox.store.published import Published
from benchbox.store.records import Records, United, open_records
from benchbox.store.store import RunRecord, Store

__all__ = ["Adversarials", "CellRecord", "Published", "Records", "RunRecord", "Store", "United", "open_records"]
