"""Validation images whose classes are spelled otherwise than those mined for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_data import NAMES, make_toy_data
from toy_miner import METRICS, detections_of, make_miner

from hardmine import ValidationSet
from hardmine.errors import InputError
from hardmine.history import Round

VAL = make_toy_data(200, rates=(0.5, 0.4, 0.2), seed=1)


def spelled(*names: str) -> ValidationSet:
    return ValidationSet(replace(VAL.images, class_names=names), VAL.index)


def mined_with(validation: ValidationSet, **options: Any) -> Round:
    found = detections_of(VAL, miss_at_night="fork", zebras_on_forks=True)
    miner = make_miner(make_toy_data(), validation=validation, **options)
    return miner.step(METRICS, val_detections=found)


@pytest.mark.parametrize("contexts", [["at night"], "auto"])
def test_what_boxes_tell_does_not_depend_on_how_classes_are_spelled(contexts: Any) -> None:
    expected = mined_with(spelled(*NAMES), contexts=contexts)
    done = mined_with(spelled("Car", "FORK", "_zebra"), contexts=contexts)
    assert expected.inputs is not None
    assert done.inputs is not None
    assert done.conditions == expected.conditions
    assert done.inputs.ratios == expected.inputs.ratios
    assert done.inputs.mistaken_for == expected.inputs.mistaken_for
    assert done.inputs.mistaken_for
    assert ("fork", "at night") in {(query.class_name, query.context) for query in done.queries}
    assert np.array_equal(done.weights, expected.weights)
    assert expected.notes == ()
    assert done.notes == (
        "the validation images spell classes otherwise: 'car' is 'Car', 'fork' is 'FORK', "
        "'zebra' is '_zebra'",
    )


def test_classes_that_differ_are_named() -> None:
    same = spelled(*NAMES)
    assert same.with_names(NAMES) == same
    matched = spelled("zebra_", "Car", "fork").with_names((*NAMES, "bus"))
    assert matched.images.class_names == ("zebra", "car", "fork")
    assert matched.images.class_ids is VAL.images.class_ids
    assert matched.notes == (
        "the validation images spell classes otherwise: 'car' is 'Car', 'zebra' is 'zebra_'",
        "the validation images lack 1 of 4 classes, so predicted boxes tell nothing of these: "
        "'bus'",
    )
    # A class that is not mined for stays, and is not mistaken for one that is.
    more = spelled("cars", "fork", "tram").with_names(("car", "fork", *"abc"))
    assert more.images.class_names == ("cars", "fork", "tram")
    assert more.notes[0].endswith("of these: 'car' (did you mean 'cars'?), 'a', 'b', ...")


def test_validation_images_of_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="none of the 3 classes: theirs are dog, cat, cow"):
        mined_with(spelled("dog", "cat", "cow"))
    # Without labels there is nothing to compare; matching boxes will say so.
    unlabelled = replace(
        VAL.images, class_names=(), class_ids=VAL.images.class_ids[:0], instances=None
    )
    assert ValidationSet(unlabelled).with_names(NAMES).notes
