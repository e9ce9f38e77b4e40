import dataclasses

import torch

from qbench.zoo.denoiser_training import TINY_DDIM
from qbench.zoo.draws import generator, initialized, stratified_timesteps


def test_a_draw_depends_on_its_address_only() -> None:
    first = torch.rand(4, generator=generator(0, "batch", 7))
    torch.rand(3)
    assert torch.equal(first, torch.rand(4, generator=generator(0, "batch", 7)))


def test_addresses_do_not_share_streams() -> None:
    addresses = [(0, "batch", 7), (1, "batch", 7), (0, "held-out", 7), (0, "batch", 8)]
    draws = {tuple(torch.rand(4, generator=generator(*address)).tolist()) for address in addresses}
    assert len(draws) == len(addresses)


def test_stratified_timesteps_cover_the_schedule_evenly() -> None:
    timesteps = stratified_timesteps(64, 1000, generator(0, "t", 0))
    assert (timesteps.double() * 64 / 1000).floor().diff().max() <= 2
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert torch.equal(timesteps, timesteps.sort().values)


def test_ten_per_timestep_when_there_are_ten_times_as_many() -> None:
    timesteps = stratified_timesteps(10_000, 1000, generator(0, "t", 1))
    assert torch.equal(timesteps.bincount(), torch.full((1000,), 10))


def test_each_timestep_is_equally_likely() -> None:
    drawn = torch.cat([stratified_timesteps(10, 25, generator(0, "t", index)) for index in range(2000)])
    counts = drawn.bincount(minlength=25).double()
    assert (counts - 800).abs().max() < 120  # four standard deviations of a binomial count


def test_a_network_is_the_seeds_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (
        initialized(lambda: torch.nn.Linear(3, 3), dataclasses.replace(TINY_DDIM, seed=seed)).weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
