from itertools import product

import numpy as np
import pytest

from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.garments import (
    NAMES,
    SHAPES,
    TEMPLATES,
    TEXTURES,
    TONES,
    Garment,
    Thresholds,
    caption,
    describe,
    every_caption,
    find_thresholds,
)

LIMITS = Thresholds(tone=(80.0, 150.0), extent=(12.0,) * 10, texture=(5.0,) * 10)
SHIRT, SANDAL = NAMES.index("shirt"), NAMES.index("sandal")


def rectangle(width: int, height: int, grey: int) -> np.ndarray:
    image = np.zeros((28, 28), np.uint8)
    image[:height, :width] = grey
    return image


def described(image: np.ndarray, label: int = SHIRT) -> Garment:
    (found,) = describe(image[None], np.array([label]), LIMITS)
    return found


@pytest.mark.parametrize(("grey", "tone"), [(79, "dark"), (80, "grey"), (149, "grey"), (150, "bright")])
def test_the_tone_is_that_of_the_garment_not_of_what_is_around_it(grey: int, tone: str) -> None:
    assert described(rectangle(3, 3, grey)).tone == tone
    around = rectangle(3, 3, grey)
    around[around == 0] = 23  # not yet visible
    assert described(around).tone == tone


def test_clothes_are_slim_or_wide_and_shoes_low_or_tall() -> None:
    assert described(rectangle(12, 20, 90)).shape == "slim"
    assert described(rectangle(13, 5, 90)).shape == "wide"
    assert described(rectangle(20, 12, 90), SANDAL).shape == "low"
    assert described(rectangle(5, 13, 90), SANDAL).shape == "tall"


def test_stripes_are_a_pattern_and_the_outline_is_none() -> None:
    plain, striped = rectangle(12, 20, 200), rectangle(12, 20, 200)
    striped[:, 1:12:2] -= 20
    striped[20:] = 0
    assert described(plain).texture == "plain"
    assert described(striped).texture == "patterned"


def test_a_black_image_is_a_garment_too() -> None:
    assert described(rectangle(0, 0, 0)) == Garment("shirt", "dark", "slim", "plain")


def test_thresholds_are_thirds_of_all_and_the_median_of_each_class() -> None:
    labels = np.repeat(np.arange(10), 9)
    images = np.stack([rectangle(5 + index % 9, 5 + index % 9, 60 + index) for index in range(90)])
    images[:, 0, 0] += (np.arange(90) % 9).astype(np.uint8)  # contrast that grows within a class
    found = find_thresholds(images, labels)
    assert found.extent == (9.0,) * 10
    garments = describe(images, labels, found)
    tones = [garment.tone for garment in garments]
    assert tones == ["dark"] * 30 + ["grey"] * 30 + ["bright"] * 30
    for start in range(0, 90, 9):
        own = garments[start : start + 9]
        assert [garment.shape == SHAPES[garment.name][1] for garment in own] == [False] * 5 + [True] * 4
        assert sum(garment.texture == "patterned" for garment in own) == 4


def test_every_attribute_is_met(patches: FashionMnist, said: list[Garment]) -> None:
    assert {garment.tone for garment in said} == set(TONES)
    assert {garment.texture for garment in said} == set(TEXTURES)
    assert {garment.shape for garment in said} == {"slim", "wide", "low", "tall"}
    assert [garment.name for garment in said] == [NAMES[label] for label in patches.labels]


def test_captions_are_words() -> None:
    garment = Garment("ankle boot", "dark", "tall", "plain")
    assert caption(garment) == "a dark tall plain ankle boot"
    assert [caption(garment, template) for template in range(1, len(TEMPLATES))] == [
        "a photo of a plain dark ankle boot, tall",
        "a tall ankle boot in dark, plain",
        "ankle boot, dark and plain",
        "a dark ankle boot",
    ]


def test_every_caption_is_there_once() -> None:
    found = every_caption()
    possible = {
        caption(Garment(name, tone, shape, texture), template)
        for name in NAMES
        for tone, shape, texture in product(TONES, SHAPES[name], TEXTURES)
        for template in range(len(TEMPLATES))
    }
    assert set(found) == possible
    assert len(found) == len(possible) == 10 * (3 * 12 + 6 + 3)
    assert found == every_caption()
