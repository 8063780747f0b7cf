"""Benchmarks: the spatial parts of established ones, each from its own files and by its own rules.

from vsre.benchmarks import run_benchmark
from vsre.diagnose import TransformersEngine
metrics = run_benchmark(TransformersEngine("llava-hf/llava-1.5-7b-hf"), "mme", "MME_Benchmark", "runs/mme")
"""

from vsre.benchmarks.benchmark import MODES, Benchmark, Copy
from vsre.benchmarks.blink import BLINK
from vsre.benchmarks.cvbench import CV_BENCH
from vsre.benchmarks.embspatial import EMBSPATIAL
from vsre.benchmarks.item import Item
from vsre.benchmarks.mmbench import MMBENCH, MMBENCH_PHYSICAL
from vsre.benchmarks.mme import MME
from vsre.benchmarks.reading import read_option
from vsre.benchmarks.run import BenchmarkRun, load_benchmark_run, open_copy, run_benchmark
from vsre.benchmarks.scoring import READINGS
from vsre.benchmarks.seed import SEED
from vsre.benchmarks.whatsup import WHATS_UP

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b for b in (MME, MMBENCH, MMBENCH_PHYSICAL, SEED, WHATS_UP, CV_BENCH, BLINK, EMBSPATIAL)
}
"""Every benchmark by its name; adding one is adding one entry."""

__all__ = [
    "BENCHMARKS",
    "MODES",
    "READINGS",
    "Benchmark",
    "BenchmarkRun",
    "Copy",
    "Item",
    "load_benchmark_run",
    "open_copy",
    "read_option",
    "run_benchmark",
]
