from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

from qbench.bits import BitWidth
from qbench.diffusion.structures import Structure
from qbench.errors import StageError
from qbench.quant import QuantModel
from qbench.quant.attention import AttentionTaps, TappedProcessor, is_attention, tap_attention
from qbench.quant.grid import grid_from_range
from qbench.quant.layers import Clock

OPERANDS = ("q", "k", "softmax", "v")
WIDTH, TEXT_WIDTH = 12, 10
IMAGE, TOKENS, TEXT = (2, WIDTH, 5, 4), (2, 7, WIDTH), (2, 3, TEXT_WIDTH)

ATTENTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...] | None]] = {
    "unconditional": (
        {"heads": 3, "dim_head": 4, "norm_num_groups": 4, "residual_connection": True, "bias": True},
        IMAGE,
        None,
    ),
    "one head": (
        {"heads": 1, "dim_head": 12, "norm_num_groups": 3, "residual_connection": True, "rescale_output_factor": 1.4},
        IMAGE,
        None,
    ),
    "image without norm": ({"heads": 2, "dim_head": 5}, IMAGE, None),
    "tokens": ({"heads": 4, "dim_head": 3}, TOKENS, None),
    "text": ({"heads": 2, "dim_head": 8, "cross_attention_dim": TEXT_WIDTH}, TOKENS, TEXT),
    "image and text": (
        {
            "heads": 3,
            "dim_head": 4,
            "cross_attention_dim": TEXT_WIDTH,
            "norm_num_groups": 4,
            "residual_connection": True,
        },
        IMAGE,
        TEXT,
    ),
    "normed text": (
        {"heads": 2, "dim_head": 8, "cross_attention_dim": TEXT_WIDTH, "cross_attention_norm": "layer_norm"},
        TOKENS,
        TEXT,
    ),
    "normed queries and keys": ({"heads": 2, "dim_head": 6, "qk_norm": "layer_norm"}, TOKENS, None),
}


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.inference_mode():
        yield


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(kind: str) -> tuple[Attention, Tensor, dict[str, Tensor]]:
    """Return an attention in which nothing is left at its start, and its inputs."""
    options, shape, text = ATTENTIONS[kind]
    attention = Attention(WIDTH, **options).eval()
    for number, parameter in enumerate(attention.parameters()):
        parameter += 0.3 * random(*parameter.shape, seed=number)
    return (
        attention,
        random(*shape, seed=100),
        {} if text is None else {"encoder_hidden_states": random(*text, seed=101)},
    )


def tapped(attention: nn.Module, bits: int = 8, softmax_bits: int = 8) -> AttentionTaps:
    return tap_attention("here", attention, bits, softmax_bits, Clock())


def watch(taps: AttentionTaps) -> dict[str, Tensor]:
    """Let every operand be put down when it comes by."""
    seen: dict[str, Tensor] = {}
    for name in OPERANDS:
        getattr(taps, name).observer = lambda x, name=name: seen.__setitem__(name, x.clone())
    return seen


def by_hand(
    attention: Attention, x: Tensor, text: Tensor | None, rounding: dict[str, Callable[[Tensor], Tensor]]
) -> Tensor:
    """Attention as the paper has it, head by head, with some operands rounded."""
    tokens = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
    if attention.group_norm is not None:
        tokens = attention.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
    context = tokens if text is None else text
    if attention.norm_cross is not None:
        context = attention.norm_cross(context)
    width = attention.to_q.out_features // attention.heads
    heads = []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (
            attention.to_q(tokens)[..., part],
            attention.to_k(context)[..., part],
            attention.to_v(context)[..., part],
        )
        if attention.norm_q is not None:
            q, k = attention.norm_q(q), attention.norm_k(k)
        q, k, v = (rounding.get(name, lambda each: each)(each) for name, each in (("q", q), ("k", k), ("v", v)))
        probabilities = torch.softmax(torch.einsum("bic,bjc->bij", q, k) / width**0.5, dim=-1)
        heads.append(torch.einsum("bij,bjc->bic", rounding.get("softmax", lambda each: each)(probabilities), v))
    found = attention.to_out[0](torch.cat(heads, dim=-1))
    found = found.transpose(1, 2).unflatten(2, x.shape[2:]) if x.dim() == 4 else found
    return (found + x if attention.residual_connection else found) / attention.rescale_output_factor


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_with_observers_it_computes_what_the_stock_processor_does(kind: str) -> None:
    attention, x, given = make(kind)
    wanted = attention(x, **given)
    watch(tapped(attention))
    assert isinstance(attention.processor, TappedProcessor)
    torch.testing.assert_close(attention(x, **given), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in ATTENTIONS if kind != "normed queries and keys"])
def test_the_older_stock_processor_computes_the_same(kind: str) -> None:
    attention, x, given = make(kind)
    attention.set_processor(AttnProcessor())
    wanted = attention(x, **given)
    taps = tapped(attention)
    assert torch.equal(attention(x, **given), wanted)
    watch(taps)
    torch.testing.assert_close(attention(x, **given), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_idle_it_is_the_stock_processor_to_the_bit(kind: str) -> None:
    attention, x, given = make(kind)
    wanted = attention(x, **given)
    taps = tapped(attention)
    assert torch.equal(attention(x, **given), wanted)
    for name in OPERANDS:
        getattr(taps, name).grid = grid_from_range(torch.tensor(-1.0), torch.tensor(1.0), 2)
        assert not taps.are_idle
        assert not torch.equal(attention(x, **given), wanted)
        getattr(taps, name).enabled = False
        assert taps.are_idle
        assert torch.equal(attention(x, **given), wanted)


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_each_operand_is_rounded_to_its_grid(kind: str, operand: str) -> None:
    attention, x, given = make(kind)
    stock = attention(x, **given)
    taps = tapped(attention)
    seen = watch(taps)
    attention(x, **given)
    grid = grid_from_range(seen[operand].min(), seen[operand].max(), 4)
    getattr(taps, operand).grid = grid
    found = attention(x, **given)
    text = given.get("encoder_hidden_states")
    torch.testing.assert_close(by_hand(attention, x, text, {}), stock, rtol=1e-5, atol=1e-5)
    # A value within rounding of a half step may go to either side.
    wanted = by_hand(attention, x, text, {operand: grid})
    assert float(torch.isclose(found, wanted, rtol=1e-4, atol=1e-4).float().mean()) > 0.97
    assert float(torch.isclose(stock, wanted, rtol=1e-4, atol=1e-4).float().mean()) < 0.1


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_the_taps_see_queries_keys_probabilities_and_values(kind: str) -> None:
    attention, x, given = make(kind)
    taps = tapped(attention)
    seen = watch(taps)
    attention(x, **given)
    queries = x.shape[2:].numel() if x.dim() == 4 else x.shape[1]
    keys = given["encoder_hidden_states"].shape[1] if given else queries
    heads, width = attention.heads, attention.to_q.out_features // attention.heads
    assert {name: tuple(each.shape) for name, each in seen.items()} == {
        "q": (2, heads, queries, width),
        "k": (2, heads, keys, width),
        "softmax": (2, heads, queries, keys),
        "v": (2, heads, keys, width),
    }
    assert float(seen["softmax"].min()) >= 0
    assert float(seen["softmax"].max()) <= 1
    torch.testing.assert_close(seen["softmax"].sum(-1), torch.ones(2, heads, queries), rtol=1e-5, atol=0)
    products = torch.einsum("bhic,bhjc->bhij", seen["q"], seen["k"]) / width**0.5
    torch.testing.assert_close(products.softmax(-1), seen["softmax"], rtol=1e-4, atol=1e-6)


def test_observers_see_operands_before_they_are_rounded() -> None:
    attention, x, given = make("unconditional")
    taps = tapped(attention)
    plain, rounded = watch(taps), {}
    attention(x, **given)
    for name in OPERANDS:
        tap = getattr(taps, name)
        tap.grid = grid_from_range(plain[name].min(), plain[name].max(), 2)
        tap.observer = lambda each, name=name: rounded.__setitem__(name, each.clone())
    attention(x, **given)
    assert all(torch.equal(plain[name], rounded[name]) for name in ("q", "k", "v"))
    assert len(rounded["softmax"].unique()) > 4


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    attention, x, given = make("unconditional")
    taps = tapped(attention)
    for name in OPERANDS:
        getattr(taps, name).grid = grid_from_range(torch.tensor(0.0), torch.tensor(1.0), 8)
    crowded = torch.cat([x[:1], 100 * x[1:]])
    torch.testing.assert_close(attention(crowded, **given)[:1], attention(x, **given)[:1], rtol=0, atol=0)


def test_operands_have_names_and_bits() -> None:
    taps = tapped(make("tokens")[0], bits=5, softmax_bits=16)
    assert list(taps.by_name("mid.attn")) == [f"mid.attn.{name}" for name in OPERANDS]
    assert {name: tap.bits for name, tap in taps.by_name("a").items()} == {
        "a.q": 5,
        "a.k": 5,
        "a.softmax": 16,
        "a.v": 5,
    }


@pytest.mark.parametrize(
    ("bits", "operands", "softmax"),
    [("W4A8", 8, 8), ("W4A8S16", 8, 16), ("W4A6S8", 6, 8), ("W4A32", 32, 32), ("W4A32S8", 32, 8), ("W4A8S32", 8, 32)],
)
@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_softmax_output_has_bits_of_its_own(
    small_model: Callable[..., QuantModel], kind: str, bits: str, operands: int, softmax: int
) -> None:
    model = small_model(kind, bits)
    attentions = [name for name, module in model.module.named_modules() if isinstance(module, Attention)]
    assert list(model.attentions) == attentions
    assert len(attentions) == (4 if kind == "image" else 8)
    for name in attentions:
        assert {operand: model.taps[f"{name}.{operand}"].bits for operand in OPERANDS} == {
            "q": operands,
            "k": operands,
            "softmax": softmax,
            "v": operands,
        }


class OwnProcessor:
    def __call__(self, attn: Any, hidden_states: Tensor, **_: Any) -> Tensor:
        return hidden_states


class AttnProcessorOfMine(AttnProcessor2_0):
    pass


@pytest.mark.parametrize("processor", [OwnProcessor(), AttnProcessorOfMine()])
def test_a_processor_that_is_not_known_is_refused_by_name(processor: object) -> None:
    attention, *_ = make("tokens")
    attention.set_processor(processor)
    with pytest.raises(StageError, match=rf"the attention 'here' computes with {type(processor).__name__}, which"):
        tapped(attention)


class AttentionOfMine(Attention):
    """Who knows what it does otherwise."""


def test_a_derived_attention_is_refused_by_name() -> None:
    attention = AttentionOfMine(WIDTH, heads=3, dim_head=4)
    assert is_attention(attention)
    with pytest.raises(StageError, match=r"the attention 'here' is a AttentionOfMine, which"):
        tapped(attention)
    with pytest.raises(StageError, match=r"the attention '0' is a AttentionOfMine, which"):
        QuantModel(nn.Sequential(attention), Structure(("", "")), BitWidth(4, 8))


def test_a_mask_is_refused_once_there_is_something_to_quantize() -> None:
    attention, x, _ = make("tokens")
    mask = torch.zeros(2, 1, x.shape[1])
    wanted = attention(x, attention_mask=mask)
    taps = tapped(attention)
    assert torch.equal(attention(x, attention_mask=mask), wanted)
    watch(taps)
    with pytest.raises(StageError, match="attention with a mask or a spatial norm cannot be quantized"):
        attention(x, attention_mask=mask)


def test_attention_is_known_by_its_class() -> None:
    assert is_attention(make("tokens")[0])
    assert not is_attention(nn.MultiheadAttention(4, 1))
