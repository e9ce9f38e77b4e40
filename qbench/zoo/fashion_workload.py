"""What the workloads of the zoo share: real images, and which metrics of the zoo stand in for which."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from qbench.errors import DataError
from qbench.identity import file_digest
from qbench.workload import ReferenceSet, Workload
from qbench.zoo.paths import TOKENIZER_FILES, weights_path


class FashionWorkload(Workload):
    """A tiny model trained on Fashion-MNIST that ships with qbench; see its card.

    Attributes:
        weight_names: the shipped files that it is made of, without their suffix.
    """

    weight_names: ClassVar[tuple[str, ...]]
    standin_metrics: ClassVar[Mapping[str, str]] = {
        "fid": "fd-fashion",
        "sfid": "sfd-fashion",
        "is": "is-fashion",
        "clip-score": "clip-tiny",
        "fid-to-fp": "fd-fashion-to-fp",
    }

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        files = [weights_path(name) for name in self.weight_names]
        files += TOKENIZER_FILES if self.has_captions else ()
        return {each.name: file_digest(each) for each in files}

    def weights(self) -> Mapping[str, str]:
        """Return the digests of the shipped weights, and of the tokenizer where captions are read."""
        return self._digests

    def reference(self, extractor: str, extractor_weights: Mapping[str, str]) -> ReferenceSet:
        """Return the shipped statistics of the 60,000 training images under ``fashion``."""
        from qbench.zoo.reference import read_reference

        shipped = read_reference(weights_path("fashion-train"))
        if shipped.extractor_sha256 not in extractor_weights.values():
            raise DataError(
                f"the workload {self.name!r} ships reference statistics for the extractor 'fashion' only, "
                f"so a metric on {extractor!r} cannot be computed on it"
            )
        return ReferenceSet(shipped.name, shipped.samples, shipped.sha256, str(shipped.path))
