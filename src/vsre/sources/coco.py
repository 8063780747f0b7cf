"""COCO's 80 object classes with their category ids and super-categories (the facts of the 2017 instance files)."""

from __future__ import annotations

_GROUPS = {
    "person": "person:1",
    "vehicle": "bicycle:2 car:3 motorcycle:4 airplane:5 bus:6 train:7 truck:8 boat:9",
    "outdoor object": "traffic_light:10 fire_hydrant:11 stop_sign:13 parking_meter:14 bench:15",
    "animal": "bird:16 cat:17 dog:18 horse:19 sheep:20 cow:21 elephant:22 bear:23 zebra:24 giraffe:25",
    "accessory": "backpack:27 umbrella:28 handbag:31 tie:32 suitcase:33",
    "sports item": "frisbee:34 skis:35 snowboard:36 sports_ball:37 kite:38 baseball_bat:39 baseball_glove:40 "
    "skateboard:41 surfboard:42 tennis_racket:43",
    "kitchen item": "bottle:44 wine_glass:46 cup:47 fork:48 knife:49 spoon:50 bowl:51",
    "food": "banana:52 apple:53 sandwich:54 orange:55 broccoli:56 carrot:57 hot_dog:58 pizza:59 donut:60 cake:61",
    "piece of furniture": "chair:62 couch:63 potted_plant:64 bed:65 dining_table:67 toilet:70",
    "electronic device": "tv:72 laptop:73 mouse:74 remote:75 keyboard:76 cell_phone:77",
    "appliance": "microwave:78 oven:79 toaster:80 sink:81 refrigerator:82",
    "indoor object": "book:84 clock:85 vase:86 scissors:87 teddy_bear:88 hair_drier:89 toothbrush:90",
}

_ENTRIES = [
    (name.replace("_", " "), int(number), group)
    for group, members in _GROUPS.items()
    for name, number in (member.split(":") for member in members.split())
]

CATEGORY_ID: dict[str, int] = {name: number for name, number, _ in _ENTRIES}
"""Class name -> COCO category id."""

SUPERCATEGORY: dict[str, str] = {name: group for name, _, group in _ENTRIES}
"""Class name -> super-category, in words ("kitchen item" for COCO's "kitchen")."""
