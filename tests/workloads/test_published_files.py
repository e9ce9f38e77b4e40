import re

import pytest
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchvision.models import AlexNet_Weights

from qbench.workloads import published_files
from qbench.workloads.assets import Address, Asset, HubFolder
from qbench.workloads.published_files import ALEXNET, INCEPTION

SOURCES = {
    name: found.source if isinstance(found, Asset) else found
    for name, found in vars(published_files).items()
    if isinstance(found, Asset | Address)
}


def test_the_weights_of_metrics_are_those_of_their_libraries():
    assert INCEPTION.url == URL_INCEPTION_V3
    assert AlexNet_Weights.IMAGENET1K_V1.url == ALEXNET.url
    for file in (INCEPTION, ALEXNET):
        assert file.digest is not None
        assert file.file_name.endswith(f"-{file.digest[:8]}.pth")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_what_was_written_down_can_be_meant(name: str):
    source = SOURCES[name]
    if isinstance(source, HubFolder):
        assert re.fullmatch("[0-9a-f]{40}", source.revision)
        return
    assert isinstance(source, Address)
    assert source.url.startswith(("https://", "http://"))
    assert source.digest is None or re.fullmatch("[0-9a-f]{8,64}", source.digest)
    assert (source.member or source.members or "") == "" or source.file_name.endswith((".zip", ".tar.gz"))
