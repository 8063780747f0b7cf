"""How often a verifier is right on drawn scenes, compared with the same rules on the scenes' true boxes.

    python benchmarks/verifier_on_scenes.py --units 200 --verifier scenes --json verifier.json

Both judge the same statements about the same held-out pictures; what is wrong or left open with true boxes is due to
the rules, the difference is due to the detector.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vsre.verify import build_verifier
from vsre.verify.scene_check import ABSENT, ALL, TrueBoxes, compare, confusion, lines, scene_statements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=200, help="pairs of scenes")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", type=int, default=192, help="pixels of the pictures")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"))
    parser.add_argument("--verifier", default="scenes", help="a preset of `vsre verify presets` or a YAML file")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = list(scene_statements(args.units, args.seed, split=args.split, size=args.size))
    found = {}
    for name, verifier in (("true boxes", TrueBoxes()), (args.verifier, build_verifier(args.verifier))):
        found[name] = confusion(compare(verifier, rows))
        print(f"\n{name} ({verifier.name}), {len(rows)} statements, {len({r.image_id for r in rows})} pictures")
        shown = found[name] if name == args.verifier else {k: v for k, v in found[name].items() if k in (ALL, ABSENT)}
        print("\n".join(lines(shown)))
    if args.json:
        args.json.write_text(json.dumps({"units": args.units, "seed": args.seed, "size": args.size, **found}, indent=1))


if __name__ == "__main__":
    main()
