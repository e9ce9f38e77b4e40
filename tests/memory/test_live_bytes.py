import torch
from torch.nn import functional

from qbench.memory.live_bytes import FusedAttention, LiveBytes


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_tensors_count_until_they_are_freed():
    x = meta(100)
    with LiveBytes([x]) as live:
        first = x + 1
        second = first * 2
        assert (live.now, live.peak) == (800, 800)
        del first
        assert (live.now, live.peak) == (400, 800)
        live.start_over()
        assert live.peak == 400
        del second
    assert live.now == 0


def test_views_and_what_is_written_in_place_take_no_room():
    x = meta(10, 10)
    with LiveBytes([x]) as live:
        _ = x.t(), x[2:5], x.flatten(), x.add_(1)
        assert live.peak == 0
        made = x + 1
        _ = made.t().clamp_(0, 1)
        assert live.peak == 400


def test_what_is_made_in_a_pause_never_counts():
    with LiveBytes() as live:
        with live.paused():
            kept = meta(100)
        view = kept[:10]
        assert live.peak == 0
        del kept, view
        assert live.now == 0


def test_what_a_backward_pass_needs_counts():
    weight = meta(100).requires_grad_(True)
    with LiveBytes([weight]) as live:
        loss = weight.exp().sum()
        assert live.now == 400 + 4  # exp keeps its result
        torch.autograd.backward(loss)
        del loss
        assert live.now == 400  # the gradient
        assert live.peak >= 800


def test_attention_keeps_no_probabilities():
    q = meta(1, 2, 256, 8).requires_grad_(True)
    probabilities = 2 * 256 * 256 * 4
    with LiveBytes([q]) as plain:
        functional.scaled_dot_product_attention(q, q, q)
    with LiveBytes([q]) as fused, FusedAttention():
        torch.autograd.backward(functional.scaled_dot_product_attention(query=q, key=q, value=q).sum())
    assert plain.peak > probabilities > fused.peak > 0
