"""An Inception network that was never trained: of the right shape, and so good for comparing code with code."""

from io import BytesIO
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with random weights that keep the size of what goes through, so that images differ to the end."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: object) -> None:
            assert state_dict == {}

    nothing = BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    state = Untrained("untrained", ["2048"], feature_extractor_weights_path=nothing).state_dict()
    random = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if tensor.dim() == 4:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=random)
        elif name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=random)
        elif name.endswith(("bn.bias", "running_mean", "fc.bias")):
            tensor.normal_(0, 0.3, generator=random)
    for name in state:
        if name.startswith("Mixed_7c") and name.endswith(("bn.weight", "bn.bias")):
            state[name] /= 8  # pooled features are below 1, as those of the trained network
    state["fc.weight"].normal_(0, 1.5, generator=random)
    path = tmp_path_factory.mktemp("inception") / "untrained.pth"
    torch.save(state, path)
    return path
