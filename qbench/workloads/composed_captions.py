"""Composes the calibration captions that ship with qbench: sentences of our own about what COCO's photographs show.

``python -m qbench.workloads.composed_captions`` prints them. A scene says who does what where; every phrase of it goes
with every other one. What is taken is decided by hashes and not by a random generator, so that it is the same for ever.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

COUNT = 500
SENTENCES = (
    "{Subject} {doing} {place}.",
    "{Subject} {be} {doing} {place}.",
    "There {be} {subject} {doing} {place}.",
    "A photo of {subject} {doing} {place}.",
    "{Place}, {subject} {be} {doing}.",
    "{Subject} {doing}.",
    "{Subject} {place}.",
)


@dataclass(frozen=True)
class Scene:
    """What is seen together.

    Attributes:
        subjects: who or what; one that begins with neither "a" nor "an" stands for several.
        doings: participles.
        places: where.
    """

    subjects: Sequence[str]
    doings: Sequence[str]
    places: Sequence[str]


def _scene(subjects: str, doings: str, places: str) -> Scene:
    return Scene(*([part.strip() for part in text.split("|")] for text in (subjects, doings, places)))


SCENES = (
    _scene(
        "a surfer in a black wetsuit | a bearded man | two teenagers | a woman with wet hair | a young boy",
        "riding a small wave | paddling out on a yellow surfboard | waiting for the next swell | falling off a board",
        "near a rocky shore | in greenish water | under a cloudy sky | beside a long wooden pier",
    ),
    _scene(
        "a skateboarder in a grey hoodie | a girl with knee pads | three boys | a man in torn jeans",
        "jumping over a low bench | rolling down a concrete ramp | balancing on a metal rail | resting on a skateboard",
        "at a skate park | in front of a painted wall | on an empty parking lot | late in the evening",
    ),
    _scene(
        "a skier in an orange jacket | a snowboarder with mirrored goggles | a family of four | an older couple",
        "gliding past pine trees | standing in deep snow | stopping for a rest | tightening their boots",
        "on a steep mountain slope | below a chair lift | on a bright winter morning | near a wooden hut",
    ),
    _scene(
        "a baseball pitcher | a batter in a striped uniform | a catcher with a worn glove | two children in caps",
        "getting ready for the next ball | stepping onto the dirt | watching a high throw | warming up",
        "in a crowded stadium | on a small town field | under bright floodlights | behind a tall fence",
    ),
    _scene(
        "a tennis player in a green skirt | a tall man with a headband | two women | a boy with an oversized racket",
        "reaching for a low shot | tossing a ball up | bending down for a ball | walking back to the line",
        "on a clay court | on a blue indoor court | during a practice match | before a handful of spectators",
    ),
    _scene(
        "a brown dog with a red collar | a spotted puppy | two terriers | a shaggy white dog | an old greyhound",
        "catching a purple frisbee | chewing on a stick | chasing a small ball | lying with closed eyes",
        "in tall dry grass | on a muddy path | beside a picnic blanket | at the edge of a pond",
    ),
    _scene(
        "a striped cat | a fluffy orange kitten | two black cats | a grey cat with green eyes",
        "sleeping on a closed laptop | peeking out of a cardboard box | staring at a goldfish | stretching out",
        "on a sunny windowsill | next to a pile of books | on top of a refrigerator | under a wicker chair",
    ),
    _scene(
        "a herd of zebras | an adult giraffe | two young elephants | a pair of rhinos | a lone zebra",
        "drinking from a shallow pool | grazing quietly | crossing a dusty track | standing in the shade",
        "on a wide savanna | behind a wooden fence at the zoo | near a few thorny trees | before distant hills",
    ),
    _scene(
        "a flock of sheep | a brown cow with a bell | several goats | a white horse | two ponies",
        "grazing on short grass | looking over a stone wall | following a farmer | resting out of the wind",
        "in a green valley | by a red barn | on a foggy hillside | beside a country road",
    ),
    _scene(
        "a brown bear | a polar bear cub | a large grizzly | two black bears",
        "wading through a stream | climbing over a log | sniffing at a fish | lying on flat rocks",
        "in a dense forest | in a zoo enclosure | by a waterfall | on an early spring day",
    ),
    _scene(
        "a red bird with a short beak | a flock of seagulls | an owl | two ducks | a colorful parrot",
        "perching quietly | preening | picking at some crumbs | looking to the left",
        "on a thin branch | along a stone railing | by a quiet harbor | above a flower bed",
    ),
    _scene(
        "a double decker bus | a yellow school bus | two city buses | a bus with an advertisement for a museum",
        "turning at a wide intersection | stopping for passengers | driving through a puddle | waiting in traffic",
        "on a rainy afternoon | next to a brick theater | under bare trees | in a narrow street",
    ),
    _scene(
        "a long freight train | a silver commuter train | an old steam engine | a blue tram",
        "pulling into a station | crossing an iron bridge | passing a signal | standing on rusty tracks",
        "at the foot of a mountain | among tall apartment blocks | at sunset | beside an empty platform",
    ),
    _scene(
        "a passenger jet | a small propeller plane | two fighter jets | a biplane with painted wings",
        "taking off | flying low over the trees | waiting on the runway | coming in for a landing",
        "in clear weather | against a pink sky | in front of a large hangar | at a busy airport",
    ),
    _scene(
        "a row of motorcycles | a shiny black motorcycle | a rider in a leather jacket | an old scooter",
        "leaning against a curb | standing in the sun | blocking half of the sidewalk | drawing a small crowd",
        "outside a diner | at a desert gas station | near a parking meter | on a cobbled square",
    ),
    _scene(
        "a bicycle with a wicker basket | a cyclist with a backpack | several rental bikes | a tandem bike",
        "leaning on a lamp post | waiting at a traffic light | blocking a blue door | rolling past a fire hydrant",
        "in an old town | beside a canal | on a leafy avenue | in light snow",
    ),
    _scene(
        "a wooden rowing boat | several sailboats | a fishing boat with a tall mast | a ferry full of tourists",
        "drifting on calm water | lying at anchor | leaving the harbor | passing a lighthouse",
        "on a misty lake | in a small bay | below a row of colorful houses | at low tide",
    ),
    _scene(
        "a delivery truck | a fire engine | a pickup truck with muddy tires | a line of taxis",
        "backing into an alley | waiting beside a stop sign | carrying a load of lumber | moving slowly",
        "in a busy downtown area | near a construction site | on a snowy highway | in front of a bakery",
    ),
    _scene(
        "a pizza with olives and basil | a sandwich cut in half | a bowl of noodle soup | two hot dogs with mustard",
        "lying next to a glass of iced tea | served with a green salad | cooling off | looking freshly made",
        "on a checkered tablecloth | on a wooden board | in a roadside cafe | on a paper tray",
    ),
    _scene(
        "a chocolate cake with candles | a plate of glazed donuts | a slice of carrot cake | four cupcakes",
        "decorated with strawberries | standing beside a coffee cup | dusted with sugar | waiting to be shared",
        "on a glass stand | at a birthday party | on a kitchen counter | behind the window of a pastry shop",
    ),
    _scene(
        "a bunch of ripe bananas | several green apples | a basket of oranges | some broccoli and carrots",
        "spilling out of a paper bag | lying in a blue bowl | arranged by color | stacked high",
        "at an outdoor market | beside a cutting board | on a marble table | under a striped awning",
    ),
    _scene(
        "a woman in an apron | a chef with a tall hat | a father and his daughter | two students",
        "stirring a steaming pot | slicing vegetables with a large knife | sliding a tray into the oven | washing up",
        "in a tiny kitchen | next to a stainless steel refrigerator | under hanging pans | in a restaurant kitchen",
    ),
    _scene(
        "a white toilet | a deep bathtub with claw feet | a sink with a round mirror | two folded towels",
        "seen from the doorway | reflecting the morning light | surrounded by green tiles | standing out",
        "in a narrow bathroom | beside a potted fern | under a sloped ceiling | in a half finished room",
    ),
    _scene(
        "a leather couch | a round dining table with four chairs | a flat screen television | a tall bookshelf",
        "facing a brick fireplace | taking up most of the space | standing on a patterned rug | lit by a floor lamp",
        "in a cozy living room | in a loft with large windows | beside a vase of tulips | under a framed map",
    ),
    _scene(
        "a neatly made bed | a child with a teddy bear | a bunk bed | two pillows with floral covers",
        "catching some afternoon sun | half hidden by a curtain | seen through an open door | framed by two lamps",
        "in a pale blue bedroom | under a wooden ceiling | in a simple hotel room | beside an alarm clock",
    ),
    _scene(
        "a desk with two monitors | a laptop and a wireless mouse | an old keyboard | a stack of notebooks",
        "covered with sticky notes | standing beside a mug | lit by a small lamp | waiting for somebody to return",
        "in a home office | by a large window | in a shared studio | on the top floor of a library",
    ),
    _scene(
        "a man in a dark suit and a striped tie | a bride with a bouquet | two friends | a girl with a phone",
        "smiling at the camera | holding a glass of wine | cutting a ribbon | laughing out loud",
        "in front of a stone wall | at a garden party | beside a tall window | on a wide staircase",
    ),
    _scene(
        "a woman with a polka dot umbrella | a man with a rolling suitcase | some pedestrians | a boy in rubber boots",
        "crossing a wet street | looking for a taxi | hurrying past a shop window | waiting for the light to change",
        "in a heavy downpour | at a crowded corner | beneath a railway bridge | near a clock tower",
    ),
    _scene(
        "a toddler in a sunhat | two sisters | a grandfather in a straw hat | a group of students",
        "flying a kite shaped like a dragon | sharing a bench | eating ice cream | building a castle out of sand",
        "on a windy beach | in a city park | by a fountain | on the last day of summer",
    ),
    _scene(
        "a tall clock tower | a stop sign covered with stickers | a red fire hydrant | a row of street lamps",
        "standing in front of an old bank | casting a long shadow | leaning a little to one side | shining brightly",
        "on a quiet corner | after a snowfall | in a coastal town | at the end of a gravel road",
    ),
)


def composed_captions(count: int = COUNT) -> list[str]:
    """Return captions, no two alike, from all scenes in turn."""
    found: dict[str, None] = {}
    attempt = 0
    while len(found) < count:
        found.setdefault(_caption(attempt))
        attempt += 1
    return list(found)


def _caption(attempt: int) -> str:
    scene = SCENES[attempt % len(SCENES)]
    sentence, subject, doing, place = (
        _chosen(phrases, f"{attempt} {slot}")
        for slot, phrases in enumerate((SENTENCES, scene.subjects, scene.doings, scene.places))
    )
    return sentence.format(
        subject=subject,
        Subject=_capital(subject),
        be="is" if subject.split()[0] in ("a", "an") else "are",
        doing=doing,
        place=place,
        Place=_capital(place),
    )


def _chosen(phrases: Sequence[str], key: str) -> str:
    return phrases[int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % len(phrases)]


def _capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{caption}\n" for caption in composed_captions()))
