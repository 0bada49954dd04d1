"""The kinds (classes) of objects in scenes, from the most to the least frequent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hardmine.scenes import animals, food, household, outdoors, vehicles
from hardmine.scenes.paint import Paint
from hardmine.scenes.pen import Pen

PAINTED = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "gray", "white")
FUR = ("orange", "brown", "black", "gray", "white")
VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


@dataclass(frozen=True)
class Kind:
    """A class of objects.

    Attributes:
        name: Its class name.
        draw: Function that draws one object with a pen and a paint; the generator varies it.
        colors: Names of its possible colours.
        places: Places in which it is much more frequent.
        companions: Kinds that often appear together with it.
        synonyms: Other names for it.
        tilt: Largest rotation to either side, in degrees.
        flies: Whether it is placed above the horizon.
        patterned: Whether it may be striped or spotted.
        mirrored: Whether it may be mirrored; False for signs with text.
    """

    name: str
    draw: Callable[[Pen, Paint, np.random.Generator], None]
    colors: tuple[str, ...]
    places: tuple[str, ...]
    companions: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    tilt: float = 8.0
    flies: bool = False
    patterned: bool = False
    mirrored: bool = True


KINDS: tuple[Kind, ...] = (
    Kind(
        "person",
        animals.person,
        PAINTED,
        ("street", "beach", "room"),
        companions=("bicycle", "dog", "umbrella"),
        synonyms=("pedestrian",),
        patterned=True,
    ),
    Kind(
        "car",
        vehicles.car,
        PAINTED,
        ("street",),
        companions=("traffic light", "car", "stop sign"),
        synonyms=("automobile",),
        patterned=True,
    ),
    Kind(
        "tree",
        outdoors.tree,
        ("green", "orange", "yellow"),
        ("meadow", "street"),
        companions=("house", "bird"),
        tilt=5,
    ),
    Kind(
        "cup",
        household.cup,
        PAINTED,
        ("kitchen", "room"),
        companions=("apple", "banana"),
        synonyms=("mug",),
        patterned=True,
    ),
    Kind(
        "bird",
        animals.bird,
        (*VIVID, "brown", "white"),
        ("meadow", "beach"),
        companions=("tree",),
        flies=True,
    ),
    Kind(
        "house",
        outdoors.house,
        (*VIVID, "white", "gray"),
        ("meadow", "street"),
        companions=("tree", "flower"),
        tilt=4,
    ),
    Kind(
        "flower",
        outdoors.flower,
        (*VIVID, "white"),
        ("meadow",),
        companions=("butterfly", "flower"),
        tilt=15,
    ),
    Kind(
        "bicycle",
        vehicles.bicycle,
        PAINTED,
        ("street",),
        companions=("person",),
        synonyms=("bike",),
    ),
    Kind(
        "dog",
        animals.dog,
        FUR,
        ("meadow", "street", "room"),
        companions=("person", "cat"),
        synonyms=("puppy",),
        patterned=True,
    ),
    Kind(
        "apple",
        food.apple,
        ("red", "green", "yellow"),
        ("kitchen",),
        companions=("apple", "banana"),
        tilt=25,
    ),
    Kind(
        "chair",
        household.chair,
        (*PAINTED[:-1], "brown"),
        ("room", "kitchen"),
        companions=("cat", "cup"),
    ),
    Kind(
        "cat",
        animals.cat,
        FUR,
        ("room", "meadow"),
        companions=("chair", "dog"),
        synonyms=("kitten",),
        patterned=True,
    ),
    Kind(
        "bus",
        vehicles.bus,
        PAINTED,
        ("street",),
        companions=("car", "person"),
        synonyms=("coach",),
        tilt=5,
        patterned=True,
    ),
    Kind(
        "fish",
        animals.fish,
        (*VIVID, "gray"),
        ("beach",),
        companions=("fish", "sailboat"),
        tilt=30,
        patterned=True,
    ),
    Kind(
        "umbrella",
        household.umbrella,
        (*VIVID, "black"),
        ("beach", "street"),
        companions=("person",),
        tilt=25,
        patterned=True,
    ),
    Kind(
        "balloon",
        household.balloon,
        VIVID,
        ("meadow", "room"),
        companions=("balloon",),
        tilt=15,
        flies=True,
        patterned=True,
    ),
    Kind(
        "truck",
        vehicles.truck,
        PAINTED,
        ("street", "desert"),
        companions=("car",),
        synonyms=("lorry",),
        tilt=5,
    ),
    Kind(
        "banana",
        food.banana,
        ("yellow", "green"),
        ("kitchen",),
        companions=("apple", "pineapple"),
        tilt=40,
    ),
    Kind(
        "traffic light",
        outdoors.traffic_light,
        ("black", "yellow", "gray"),
        ("street",),
        companions=("car", "bus"),
        synonyms=("traffic signal",),
        tilt=5,
    ),
    Kind(
        "sailboat",
        vehicles.sailboat,
        (*VIVID, "white"),
        ("beach",),
        companions=("fish", "bird"),
        synonyms=("sailing boat",),
        tilt=12,
        patterned=True,
    ),
    Kind(
        "clock",
        household.clock,
        (*PAINTED[:-1], "brown"),
        ("room", "kitchen"),
        companions=("chair",),
        tilt=12,
    ),
    Kind(
        "butterfly",
        animals.butterfly,
        VIVID,
        ("meadow",),
        companions=("flower",),
        tilt=40,
        flies=True,
        patterned=True,
    ),
    Kind(
        "airplane",
        vehicles.airplane,
        (*VIVID, "gray", "white"),
        ("desert", "beach"),
        synonyms=("plane",),
        tilt=50,
        flies=True,
    ),
    Kind(
        "stop sign",
        outdoors.stop_sign,
        ("red",),
        ("street",),
        companions=("car", "traffic light"),
        tilt=6,
        mirrored=False,
    ),
    Kind(
        "strawberry",
        food.strawberry,
        ("red", "pink"),
        ("kitchen",),
        companions=("strawberry", "ice cream"),
        tilt=30,
    ),
    Kind(
        "rabbit",
        animals.rabbit,
        FUR,
        ("meadow",),
        companions=("carrot",),
        synonyms=("bunny",),
    ),
    Kind(
        "carrot",
        food.carrot,
        ("orange", "purple", "yellow"),
        ("kitchen", "meadow"),
        companions=("rabbit",),
        tilt=60,
    ),
    Kind(
        "mushroom",
        food.mushroom,
        ("red", "brown", "orange", "purple"),
        ("meadow",),
        companions=("snail", "mushroom"),
        tilt=15,
    ),
    Kind(
        "guitar",
        household.guitar,
        ("red", "orange", "yellow", "brown", "blue"),
        ("room",),
        companions=("chair",),
        tilt=40,
    ),
    Kind(
        "ice cream",
        food.ice_cream,
        ("pink", "yellow", "green", "brown", "white"),
        ("beach",),
        companions=("strawberry",),
        synonyms=("ice cream cone",),
        tilt=15,
        patterned=True,
    ),
    Kind(
        "cactus",
        outdoors.cactus,
        ("green",),
        ("desert",),
        companions=("cactus",),
        tilt=5,
    ),
    Kind(
        "hammer",
        household.hammer,
        (*VIVID, "black"),
        ("room", "desert"),
        companions=("scissors",),
        tilt=70,
    ),
    Kind(
        "scissors",
        household.scissors,
        (*VIVID, "black"),
        ("room", "kitchen"),
        companions=("hammer",),
        tilt=70,
    ),
    Kind(
        "key",
        household.key,
        ("yellow", "gray", "red", "blue", "green"),
        ("room", "kitchen"),
        companions=("clock",),
        tilt=60,
    ),
    Kind(
        "pineapple",
        food.pineapple,
        ("yellow", "orange", "brown"),
        ("kitchen", "beach"),
        companions=("banana",),
        tilt=15,
    ),
    Kind(
        "snail",
        animals.snail,
        (*VIVID, "brown"),
        ("meadow",),
        companions=("mushroom",),
        tilt=10,
    ),
)

NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
