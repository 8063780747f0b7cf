"""What is wrong with a training and a test set together: leaks, blind floors, label noise.

from vsre.audit import audit
found = audit(["random/train.jsonl", "zeroshot/train.jsonl"], "zeroshot/test.jsonl")
print(found.line, found.figures["findings"]["verbatim_rows"]["count"])
"""

from vsre.audit.run import Audit, audit
from vsre.audit.verdict import leak_summary

__all__ = ["Audit", "audit", "leak_summary"]
