"""Makes tests/tiny_models.py importable from every test folder, and keeps tests off the network."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))
