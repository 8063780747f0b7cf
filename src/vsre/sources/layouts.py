"""Layouts: the pictures of a data set redrawn from their boxes, with the sprites of the embedded world.

Captions, human labels and boxes stay the real ones; only the pixels are drawn, so no photo is needed. Every object
fills its box exactly. Smaller things are drawn over larger ones, whatever the caption says and whether it is true.
Boxes do not hold depth, gaze and the like, so neither do layouts: what a box cannot tell, a layout cannot show (arXiv
2412.18224 has nothing of the kind; it is the closest to VSR that can be run without COCO's photos).
"""

from __future__ import annotations

import colorsys
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

from PIL import Image, ImageDraw, ImageFont

from vsre.errors import VsreError
from vsre.files import is_file
from vsre.sources.images import check_side
from vsre.sources.scenes.backgrounds import BACKGROUNDS, background
from vsre.sources.scenes.sprites import SPRITES, turned
from vsre.sources.vsr import SetAside, find_splits, import_vsr
from vsre.sources.vsr.importer import Annotations
from vsre.sources.vsr.objects import ImageObjects, read_objects
from vsre.sources.vsr.reader import index_rows, read_index
from vsre.triplets import Box

JPEG_QUALITY = 90
Which = Literal["named", "all"]


def draw_layout(objects: ImageObjects, name: str, size: int = 192) -> Image.Image:
    """The picture of some objects: RGB, the longer side `size` pixels, square if the image's shape is unknown.

    `name`, the image's file name, determines background, sprites and which way they look: the same name gives the same
    picture.
    """
    width, height = _shape(objects, size)
    rng = Random(f"layout/{name}")
    kind, seed = rng.choice(sorted(BACKGROUNDS)), rng.randrange(1 << 16)
    canvas = Image.fromarray(background(kind, seed, size)).resize((width, height), Image.Resampling.LANCZOS)
    known = [(found, box) for found, box in objects.objects if box is not None]
    # Larger first; equal ones in the order of the file.
    for found, box in sorted(known, key=lambda item: -_area(item[1])):
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, (width, height, width, height), strict=True))
        w, h = max(2, x1 - x0), max(2, y1 - y0)
        picture = _sprite(found, Random(f"layout/{name}/{found}"), w, h) if found in SPRITES else tile(found, w, h)
        canvas.paste(picture, (x0, y0), picture)
    return canvas


def _shape(objects: ImageObjects, size: int) -> tuple[int, int]:
    longest = max(objects.width, objects.height)
    if not objects.width or not objects.height:
        return size, size
    return max(8, round(size * objects.width / longest)), max(8, round(size * objects.height / longest))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _sprite(name: str, rng: Random, width: int, height: int) -> Image.Image:
    image = turned(rng.choice(SPRITES[name]), rng.random() < 0.5, 0.0)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def tile(name: str, width: int, height: int) -> Image.Image:
    """A card that bears the class's name (RGBA), for a class without a sprite; its colour depends on the name."""
    hue = hashlib.sha256(name.encode()).digest()[0] / 256
    paper, ink = (tuple(round(255 * v) for v in colorsys.hls_to_rgb(hue, light, 0.5)) for light in (0.8, 0.25))
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), min(width, height) // 8, fill=paper, outline=ink)
    text = name.replace(" ", "\n")
    font = ImageFont.load_default(64)
    x0, y0, x1, y1 = draw.multiline_textbbox((0, 0), text, font=font)
    fitting = 64 * min(0.85 * width / (x1 - x0), 0.85 * height / (y1 - y0))
    if fitting >= 4:  # below, letters are dots
        font = ImageFont.load_default(fitting)
        draw.multiline_text((width / 2, height / 2), text, ink, font, anchor="mm", align="center")
    return image


def write_layouts(
    annotations: Annotations,
    out: str | Path,
    *,
    instances: Sequence[Path],
    split: str | None = None,
    protocol: str = "clean",
    which: Which = "named",
    size: int = 192,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw every image of VSR files to OUT/images and import them with their captions to OUT/SPLIT/*.parquet.

    `annotations`, `split`, `instances` and `protocol` are as in `import_vsr`, which reads the pictures back as it reads
    photos. `which`: only objects of the classes that the image's captions name, or all objects. An image in which a
    named class has no box is not drawn, and its rows are set aside. Returns import_vsr's summary with `layouts`: how
    many were drawn, why others were not, and the classes without a sprite with their number of objects. Raises
    VsreError as `import_vsr` does, for a size beyond `images.SIDES`, and if no image could be drawn.
    """
    out = Path(out)
    check_side(size)
    named = _named(find_splits(annotations, split))
    objects = read_objects(instances, named.keys())
    _remove_earlier(out / "images", named)
    not_drawn, tiles, drawn = Counter[str](), Counter[str](), 0
    for done, (image, classes) in enumerate(named.items(), 1):
        if progress:
            progress(done, len(named))
        found = objects.get(image)
        if found is None:
            not_drawn["image without boxes"] += 1
            continue
        if classes - {name for name, box in found.objects if box is not None}:
            not_drawn["named class without a box"] += 1
            continue
        if which == "named":
            kept = [(name, box) for name, box in found.objects if name in classes]
            found = ImageObjects(found.width, found.height, kept)
        path = out / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_layout(found, image, size).save(path, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        tiles.update(name for name, box in found.objects if box is not None and name not in SPRITES)
        drawn += 1
    if not drawn:
        raise VsreError(f"no picture can be drawn ({dict(not_drawn)}): give boxes of the annotated images.")
    summary = import_vsr(
        annotations,
        out,
        images=[out / "images"],
        instances=instances,
        split=split,
        protocol=protocol,
        origin="layouts",
    )
    figures = {
        "drawn": drawn,
        "not_drawn": dict(not_drawn.most_common()),
        "objects": which,
        "size": size,
        "order": "larger first",
        "classes_without_sprite": dict(tiles.most_common()),
    }
    return summary | {"layouts": figures}


def _remove_earlier(folder: Path, names: Iterable[str]) -> None:
    """Delete the pictures of these names wherever the reader would find them: for an image that is not drawn now, for
    lack of boxes, it must not find that of an earlier call. Anything else in the folder stays: it may be anybody's."""
    for place in [folder, *(entry for entry in folder.glob("*") if entry.is_dir())]:
        for name in names:
            if is_file(place / name):
                (place / name).unlink()


def _named(splits: Mapping[str, Sequence[Path]]) -> dict[str, set[str]]:
    """The classes that captions name, by image; labels are ignored."""
    named: dict[str, set[str]] = defaultdict(set)
    for files in splits.values():
        index = index_rows(files, SetAside())
        for t in read_index(index, None, {}, split="", origin="", set_aside=SetAside()):
            named[t.image_name] |= {t.subject, t.object}
    return dict(named)
