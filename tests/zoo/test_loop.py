import dataclasses
import signal
from pathlib import Path

import pytest
import torch

from qbench.errors import DataError
from qbench.zoo.checkpoint import FILE_NAME, fresh_state
from qbench.zoo.classifier_training import FASHION_FEATURES, classifier_loss, initial_classifier
from qbench.zoo.denoiser_training import TINY_DDIM, denoiser_loss, initial_denoiser
from qbench.zoo.fashion_mnist import FashionMnist
from qbench.zoo.loop import LOG_NAME, WEIGHTS_NAME, Moment, run_training
from qbench.zoo.settings import TrainingSettings
from qbench.zoo.tensor_file import read_tensors

MICRO = dataclasses.replace(FASHION_FEATURES, iterations=6, batch=8, warmup=2)
MICRO_DENOISER = dataclasses.replace(TINY_DDIM, iterations=4, batch=2, warmup=2)


class Killed(Exception):
    """Stands for the end of the process."""


def train(folder: Path, data: FashionMnist, settings: TrainingSettings = MICRO, **options) -> bytes:
    if settings.name == "tiny-ddim":
        model, loss = initial_denoiser(settings), denoiser_loss(data.images, settings)
    else:
        model, loss = initial_classifier(settings), classifier_loss(data.images, data.labels, settings)
    return run_training(model, loss, settings, folder, **options).read_bytes()


def killed_at(iteration: int):
    def watch(moment: Moment) -> None:
        if moment.iteration == iteration:
            raise Killed

    return watch


@pytest.mark.parametrize("settings", [MICRO, MICRO_DENOISER], ids=lambda settings: settings.name)
def test_same_seed_same_bytes(tmp_path: Path, synthetic: FashionMnist, settings: TrainingSettings) -> None:
    one = train(tmp_path / "one", synthetic, settings)
    torch.rand(5)  # the global generator has no say
    assert train(tmp_path / "two", synthetic, settings) == one
    assert train(tmp_path / "three", synthetic, dataclasses.replace(settings, seed=1)) != one


@pytest.mark.parametrize("settings", [MICRO, MICRO_DENOISER], ids=lambda settings: settings.name)
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, synthetic: FashionMnist, settings: TrainingSettings
) -> None:
    whole = train(tmp_path / "whole", synthetic, settings)
    with pytest.raises(Killed):  # after iteration 3; the checkpoint is of iteration 2
        train(tmp_path / "parts", synthetic, settings, checkpoint_every=2, log_every=1, watch=killed_at(3))
    assert not (tmp_path / "parts" / WEIGHTS_NAME).exists()
    seen: list[int] = []
    resumed = train(
        tmp_path / "parts", synthetic, settings, log_every=1, watch=lambda moment: seen.append(moment.iteration)
    )
    assert seen == list(range(3, settings.iterations + 1))
    assert resumed == whole


def test_the_log_has_each_iteration_once_also_after_a_resume(tmp_path: Path, synthetic: FashionMnist) -> None:
    train(tmp_path / "whole", synthetic, log_every=1)
    with pytest.raises(Killed):
        train(tmp_path / "parts", synthetic, checkpoint_every=2, log_every=1, watch=killed_at(5))
    train(tmp_path / "parts", synthetic, log_every=1)

    def without_seconds(name: str) -> list[str]:
        return [line.rsplit(",", 1)[0] for line in (tmp_path / name / LOG_NAME).read_text().splitlines()]

    assert without_seconds("parts") == without_seconds("whole")
    assert without_seconds("whole")[0] == "iteration,images,loss,learning_rate"
    assert [line.split(",")[:2] for line in without_seconds("whole")[1:]] == [[str(i), str(8 * i)] for i in range(1, 7)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_saves_first(tmp_path: Path, synthetic: FashionMnist, number: signal.Signals) -> None:
    former = signal.getsignal(number)

    def watch(moment: Moment) -> None:
        if moment.iteration == 3:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", synthetic, watch=watch)
    assert signal.getsignal(number) is former
    assert '"iteration": 3' in read_tensors(tmp_path / "parts" / FILE_NAME).metadata["progress"]
    assert train(tmp_path / "parts", synthetic) == train(tmp_path / "whole", synthetic)


@pytest.mark.parametrize(("field", "value"), [("seed", 1), ("iterations", 7), ("threads", 2), ("learning_rate", 0.1)])
def test_a_checkpoint_with_other_settings_is_refused(
    tmp_path: Path, synthetic: FashionMnist, field: str, value: int | float
) -> None:
    train(tmp_path, synthetic)
    other = dataclasses.replace(MICRO, **{field: value})
    with pytest.raises(DataError, match=f"other settings .*{field} .* there, {value} asked"):
        train(tmp_path, synthetic, other)


def test_fresh_starts_again(tmp_path: Path, synthetic: FashionMnist) -> None:
    train(tmp_path, synthetic)
    other = dataclasses.replace(MICRO, seed=1)
    assert train(tmp_path, synthetic, other, resume=False) == train(tmp_path / "new", synthetic, other)


def test_a_finished_run_is_not_trained_further(tmp_path: Path, synthetic: FashionMnist) -> None:
    whole = train(tmp_path, synthetic)
    assert train(tmp_path, synthetic, watch=killed_at(7)) == whole


def test_the_weights_are_the_running_average_in_fp16(tmp_path: Path, synthetic: FashionMnist) -> None:
    train(tmp_path, synthetic)
    weights = read_tensors(tmp_path / WEIGHTS_NAME).tensors
    kept = read_tensors(tmp_path / FILE_NAME).tensors
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, kept[f"average.{name}"].half())
    assert any(not torch.equal(kept[f"average.{name}"], kept[f"model.{name}"]) for name in weights)


def test_training_learns(tmp_path: Path, synthetic: FashionMnist) -> None:
    losses: list[float] = []
    longer = dataclasses.replace(MICRO, iterations=40, batch=32)
    train(tmp_path, synthetic, longer, watch=lambda moment: losses.append(moment.loss))
    assert losses[-1] < losses[0] - 0.1


def test_a_model_with_buffers_is_refused() -> None:
    with pytest.raises(ValueError, match="buffers"):
        fresh_state(torch.nn.BatchNorm2d(3), MICRO)
