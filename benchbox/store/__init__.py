"""What was measured, kept: the only place that knows SQL. Nothing here imports torch."""

from benchbox.store.batches import Batch
from benchbox.store.cells import CellRecord, Progress
from benchbox.store.images import Adversarials, clean_images
from benchbox.store.published import Published
from benchbox.store.records import Records, United, left_out, open_records
from benchbox.store.runs import RunRecord
from benchbox.store.store import Store

__all__ = [
    "Adversarials",
    "Batch",
    "CellRecord",
    "Progress",
    "Published",
    "Records",
    "RunRecord",
    "Store",
    "United",
    "clean_images",
    "left_out",
    "open_records",
]
