"""The host never waits for the device within the loop of a sampler, and the device is never given float64.

No accelerator is at hand, so the device is "meta": tensors there have no values, and whatever asks for one, or for a
shape that depends on them, is an error. Copies between it and the host are seen on their way.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qbench.bits import BitWidth
from qbench.diffusion import noise_source, sampling
from qbench.diffusion.guidance import guided
from qbench.diffusion.noise import Purpose
from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.diffusion.samplers import NoiseSource, StepContext, StepCorrection, make_sampler, sample
from qbench.plugins import WORKLOADS
from qbench.quant import AffineGrid, DynamicGrid, QuantModel, SplitGrid, StepGrid
from qbench.stages.denoiser import Denoiser
from qbench.workload import Workload

META = torch.device("meta")
BATCH, STEPS = 2, 4
SAMPLERS = [
    SamplerSettings(steps=STEPS),
    SamplerSettings(steps=STEPS, eta=1.0),
    SamplerSettings(steps=STEPS, spacing="quad"),
    SamplerSettings(name="plms", steps=STEPS),
    SamplerSettings(name="dpm-solver++", steps=STEPS),
    SamplerSettings(name="euler", steps=STEPS, spacing="linspace"),
]
SCALAR = AffineGrid(8, torch.tensor(0.01, device=META), torch.tensor(128.0, device=META))
GRIDS = {
    "affine": SCALAR,
    "split": SplitGrid(1, SCALAR, SCALAR),
    "steps": StepGrid(8, torch.ones(STEPS, device=META), torch.ones(STEPS, device=META)),
    "dynamic": DynamicGrid(8),
}
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.to, torch.ops.aten.copy_)


class Watch(TorchDispatchMode):
    """Refuses copies between host and device, and float64 on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        tensors = [each for each in tree_leaves((args, kwargs, found)) if isinstance(each, Tensor)]
        on_device = [each for each in tensors if each.device == META]
        self.calls += bool(on_device)
        assert torch.float64 not in {each.dtype for each in on_device}, f"{func} works on float64"
        assert func.overloadpacket not in COPIES or len(on_device) in (0, len(tensors)), (
            f"{func} copies between host and device"
        )
        return found


@pytest.fixture(autouse=True)
def _only_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is looked at once at the end, and how noise gets to the device."""

    def drawn(self: NoiseSource, step: int, device: torch.device) -> Tensor:
        return torch.empty((len(self.indices), *self.shape), device=device)

    monkeypatch.setattr(NoiseSource, "at", drawn)
    monkeypatch.setattr(sampling, "_refuse_broken", lambda *arguments: None)
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.empty(self.shape) if _is_the_end(self) else cpu(self))


def _is_the_end(tensor: Tensor) -> bool:
    return tensor.dtype == torch.int64 and tensor.shape == (BATCH,)


def make(name: str) -> tuple[Workload, QuantModel, Any]:
    workload = WORKLOADS.load(name)
    assert issubclass(workload, Workload)
    made = workload(WORKLOADS.entry(name), workload.settings_class())
    loaded = made.load()
    model = QuantModel(loaded.module.eval().requires_grad_(False), loaded.structure, BitWidth(32, 8))
    model.freeze()
    model.module.to(META)
    return made, model, loaded


def run(denoise: Any, settings: SamplerSettings, workload: Workload, **others: Any) -> Tensor:
    noise = NoiseSource(workload.latent_shape, 0, Purpose.EVALUATION, range(BATCH))
    return sample(denoise, make_sampler(workload.schedule, settings), noise, META, **others)


@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda each: f"{each.name}-{each.eta:g}-{each.spacing}")
def test_every_sampler_with_every_grid(settings: SamplerSettings) -> None:
    workload, model, loaded = make("tiny-ddim")
    for number, (name, tap) in enumerate(model.taps.items()):
        kinds = [kind for kind in GRIDS if kind != "split" or name in model.layers]
        tap.grid = GRIDS[kinds[number % len(kinds)]]
    with torch.inference_mode(), Watch() as watch:
        latents = run(Denoiser(model, loaded.codec, META), settings, workload)
    assert latents.device == META
    assert watch.calls > 100 * STEPS


def test_with_captions_and_guidance() -> None:
    workload, model, loaded = make("tiny-sd")
    for tap in model.taps.values():
        tap.grid = GRIDS["steps"]
    row = {name: each.to(META) for name, each in loaded.conditioning([""]).items()}
    context = {name: each.expand(BATCH, *each.shape[1:]) for name, each in row.items()}
    denoise = guided(Denoiser(model, loaded.codec, META), context, row, 3.0)
    with torch.inference_mode(), Watch() as watch:
        run(denoise, SamplerSettings(name="plms", steps=STEPS), workload)
    assert watch.calls > 100 * STEPS


def test_with_a_correction() -> None:
    workload, _, _ = make("tiny-ddim")
    steps = torch.zeros(STEPS)
    correction = StepCorrection(steps, torch.zeros(STEPS, workload.latent_shape[0]), steps)
    with torch.inference_mode():
        moved = correction.slope, correction.bias.to(META), correction.variance
        on_device = object.__new__(StepCorrection)  # a constructed one would be looked at
        vars(on_device).update(zip(("slope", "bias", "variance"), moved, strict=True))
        with pytest.MonkeyPatch.context() as context, Watch():
            context.setattr(StepCorrection, "on", lambda self, device: on_device)
            run(lambda x, step: x * 0.5, SAMPLERS[1], workload, correction=correction)


def test_a_correction_goes_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    workload, _, _ = make("tiny-ddim")
    steps = torch.zeros(STEPS)
    correction = StepCorrection(steps, torch.zeros(STEPS, workload.latent_shape[0]), steps)
    moved: list[torch.device] = []
    monkeypatch.setattr(StepCorrection, "on", lambda self, device: [moved.append(device), self][1])
    noise = NoiseSource(workload.latent_shape, 0, Purpose.EVALUATION, range(BATCH))
    sampler = make_sampler(workload.schedule, SAMPLERS[0])
    sample(lambda x, step: x, sampler, noise, torch.device("cpu"), correction=correction)
    assert moved == [torch.device("cpu")]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: bool(x.isfinite().all()),
        lambda x: x.cpu(),
        lambda x: x + torch.ones(x.shape).to(x.device),
        lambda x: x.double(),
    ],
)
def test_waiting_would_be_seen(wait: Callable[[Tensor], Any]) -> None:
    workload, _, _ = make("tiny-ddim")

    def denoise(x: Tensor, step: StepContext) -> Tensor:
        wait(x)
        return x

    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), torch.inference_mode(), Watch():
        run(denoise, SAMPLERS[0], workload)


def test_noise_is_copied_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # NoiseSource as it is
    done: list[Any] = []

    class Drawn:
        def pin_memory(self) -> "Drawn":
            done.append("pinned")
            return self

        def to(self, device: torch.device, **keywords: Any) -> "Drawn":
            done.append((device.type, keywords))
            return self

    monkeypatch.setattr(noise_source.torch, "from_numpy", lambda drawn: Drawn())
    noise = NoiseSource((1, 2, 2), 0, Purpose.EVALUATION, range(BATCH))
    noise.at(0, torch.device("cuda"))
    noise.at(0, torch.device("mps"))
    assert done == ["pinned", ("cuda", {"non_blocking": True}), ("mps", {})]
