import pytest
import torch

from qbench.quant import CalibrationData


def make(**changes: object) -> CalibrationData:
    values = {
        "x": torch.arange(12.0).view(6, 2),
        "timesteps": torch.arange(6) * 10,
        "step_indices": torch.arange(6) % 3,
        "batch_size": 4,
        "report": lambda done: None,
        "context": {"encoder_hidden_states": torch.arange(6.0).view(6, 1, 1), "class_labels": torch.arange(6)},
        "seed": 7,
    }
    return CalibrationData(**(values | changes))


@pytest.mark.parametrize("indices", [[4, 0, 4], [], [5]])
def test_some_rows_are_some_of_everything(indices: list[int]) -> None:
    data, chosen = make(), torch.tensor(indices, dtype=torch.int64)
    found = data.rows(chosen)
    assert (len(data), len(found)) == (6, len(indices))
    assert torch.equal(found.x, data.x[chosen])
    assert torch.equal(found.timesteps, data.timesteps[chosen])
    assert torch.equal(found.step_indices, data.step_indices[chosen])
    assert found.context.keys() == data.context.keys()
    assert all(torch.equal(found.context[name], tensor[chosen]) for name, tensor in data.context.items())
    assert (found.batch_size, found.seed, found.report) == (4, 7, data.report)


def test_a_share_of_the_work_is_reported_as_a_share_of_the_whole() -> None:
    reported: list[float] = []
    data = make(report=reported.append)
    for _ in range(4):
        data.for_share(0.25).report(0.5)
        data.for_share(0.5).for_share(0.5).report(0.5)
    assert reported == [0.125] * 8
    assert torch.equal(data.for_share(0.25).x, data.x)


def test_a_share_of_the_work_may_be_on_some_rows() -> None:
    reported: list[float] = []
    make(report=reported.append).for_share(0.5).rows(torch.tensor([1])).report(1)
    assert reported == [0.5]


def test_it_runs_through_a_model(small_model, small_data) -> None:
    model, data = small_model("text", "W4A8"), small_data("text")
    seen: list[torch.Tensor] = []
    with model.observing(lambda name: seen.append if name == "conv_in" else lambda x: None):
        data.run_through(model)
    assert torch.equal(torch.cat(seen), data.x)
    assert [len(each) for each in seen] == [4, 4, 2]
