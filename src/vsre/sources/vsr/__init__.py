"""VSR as published: JSONL annotations, COCO photos and COCO instance boxes, read into triplets."""

from vsre.sources.vsr.importer import SPLITS, find_splits, import_vsr, summary_table
from vsre.sources.vsr.reader import ReadCounts, read_vsr
from vsre.sources.vsr.set_aside import SetAside
from vsre.sources.vsr.survey import survey_vsr

__all__ = [
    "SPLITS",
    "ReadCounts",
    "SetAside",
    "find_splits",
    "import_vsr",
    "read_vsr",
    "summary_table",
    "survey_vsr",
]
