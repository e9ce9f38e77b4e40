import pytest
import torch
from torch import Tensor

from qbench.diffusion.guidance import context_of, guided, unconditional_context
from qbench.diffusion.samplers import StepContext
from qbench.diffusion.structures import Context
from qbench.errors import StageError

CPU = torch.device("cpu")
STEP = StepContext(1, 20)
CONDITIONAL = {"encoder_hidden_states": torch.arange(6.0).view(2, 3, 1), "class_labels": torch.tensor([4.0, 5.0])}
UNCONDITIONAL = {"encoder_hidden_states": torch.full((1, 3, 1), -1.0), "class_labels": torch.tensor([-2.0])}
X = torch.linspace(-1, 1, 8).view(2, 1, 2, 2)


def denoise(x: Tensor, step: StepContext, context: Context) -> Tensor:
    told = context["encoder_hidden_states"].sum(dim=(1, 2)) + context["class_labels"]
    return torch.tanh(x) * told.view(-1, 1, 1, 1) + step.step_index


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.5])
def test_guidance_is_the_formula(scale: float) -> None:
    with_captions = denoise(X, STEP, CONDITIONAL)
    without = denoise(X, STEP, {name: each.expand_as(CONDITIONAL[name]) for name, each in UNCONDITIONAL.items()})
    found = guided(denoise, CONDITIONAL, UNCONDITIONAL, scale)(X, STEP)
    torch.testing.assert_close(found, without + scale * (with_captions - without))


def test_one_call_holds_both_halves_the_unconditional_one_first() -> None:
    seen: list[tuple[Tensor, Context]] = []

    def watch(x: Tensor, step: StepContext, context: Context) -> Tensor:
        seen.append((x, context))
        return denoise(x, step, context)

    guided(watch, CONDITIONAL, UNCONDITIONAL, 2.0)(X, STEP)
    ((x, context),) = seen
    assert torch.equal(x, torch.cat([X, X]))
    assert context["class_labels"].tolist() == [-2, -2, 4, 5]
    assert torch.equal(context["encoder_hidden_states"][2:], CONDITIONAL["encoder_hidden_states"])


def test_the_unconditional_context_is_that_of_no_words() -> None:
    found = unconditional_context(lambda captions: {"class_labels": torch.tensor([len(captions[0])])}, CPU)
    assert found["class_labels"].tolist() == [0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 2, 2), "gives 3 rows of 'encoder_hidden_states' for 2 captions"),
        (torch.tensor([[[0.0]], [[float("inf")]]]), "'encoder_hidden_states' of the caption 'two' is not finite"),
    ],
)
def test_a_context_that_is_none_is_refused(value: Tensor, message: str) -> None:
    with pytest.raises(StageError, match=message):
        context_of(lambda captions: {"encoder_hidden_states": value}, ["one", "two"], CPU)
