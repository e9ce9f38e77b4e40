from collections.abc import Mapping, Sequence

import pytest
from torch import Tensor

from qbench.metrics.extractor import Extractor
from qbench.plugins import Entry
from qbench.settings import NoSettings
from qbench.stages.features import Features


class Reader(Extractor):
    features = ("length",)

    def weights(self) -> Mapping[str, str]:
        return {}

    def load(self, device: object):
        def extract(images: Tensor, captions: Sequence[str] | None) -> Mapping[str, Tensor]:
            raise NotImplementedError

        return extract


class Workload:
    def __init__(self, caption: str) -> None:
        self.caption = caption

    def captions(self, indices: range) -> list[str]:
        return [f"{self.caption} {index}" for index in indices]


class Shard:
    """What features ask of a shard of images."""

    kind, digest, start, stop = "sample", "0" * 64, 0, 3

    def __init__(self, caption: str) -> None:
        self.workload = Workload(caption)


def digest(caption: str, needs_captions: bool) -> str:
    extractor = Reader(Entry("reader", "qbench", "0", "here:Reader"), NoSettings())
    extractor.needs_captions = needs_captions
    return Features(extractor, Shard(caption)).digest


@pytest.mark.parametrize("needs_captions", [True, False])
def test_captions_count_where_they_are_looked_at(needs_captions: bool) -> None:
    assert (digest("a cat", needs_captions) != digest("a dog", needs_captions)) is needs_captions
