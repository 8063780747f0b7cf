"""The embedded world: scenes of emoji in COCO's classes, with exact boxes, masks, depth and spatial truth."""

from vsre.sources.scenes.backgrounds import BACKGROUNDS
from vsre.sources.scenes.compose import DRAWABLE, draw_scene_for, random_scene, scene_stream
from vsre.sources.scenes.facts import Seen, object_list
from vsre.sources.scenes.render import encode, masks, paint, render, shapes
from vsre.sources.scenes.scene import Placed, Scene
from vsre.sources.scenes.sprites import CLASSES, SPRITES, check_style
from vsre.sources.scenes.units import (
    Unit,
    World,
    check_objects,
    concept_splits,
    decided,
    draw_unit,
    split_of_pair,
)
from vsre.sources.scenes.write import write_world

__all__ = [
    "BACKGROUNDS",
    "CLASSES",
    "DRAWABLE",
    "SPRITES",
    "Placed",
    "Scene",
    "Seen",
    "Unit",
    "World",
    "check_objects",
    "check_style",
    "concept_splits",
    "decided",
    "draw_scene_for",
    "draw_unit",
    "encode",
    "masks",
    "object_list",
    "paint",
    "random_scene",
    "render",
    "scene_stream",
    "shapes",
    "split_of_pair",
    "write_world",
]
