"""An exported cell as somebody uses it who knows pipelines of diffusers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

import qbench
from qbench.errors import DataError, ExportError, QbenchError, StageError
from qbench.export.pipeline import QuantizedPipeline, _shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pixels(exported: Callable[[str], Path]) -> Any:
    pipeline = qbench.load_quantized(exported("tiny-ddim"), device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def text(exported: Callable[[str], Path]) -> Any:
    pipeline = qbench.load_quantized(str(exported("tiny-sd")))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_is_a_pipeline_of_diffusers(pixels: Any, text: Any) -> None:
    assert isinstance(text, DiffusionPipeline)
    assert text.components.keys() == {"unet", "vae", "text_encoder", "tokenizer"}
    assert [name for name, part in pixels.components.items() if part is not None] == ["unet"]
    assert text.to("cpu") is text
    assert (text.device, text.dtype) == (torch.device("cpu"), torch.float32)
    assert text.info.cell.label == "linear"


class TestImages:
    def test_one_image_by_default(self, pixels: Any, world: Any) -> None:
        (image,) = pixels().images
        assert isinstance(image, Image.Image)
        assert (image.mode, image.size) == ("L", (16, 16))
        np.testing.assert_array_equal(np.asarray(image), world.images("tiny-ddim")[0, 0])

    def test_an_image_is_the_same_whatever_is_asked_for_with_it(self, pixels: Any, world: Any) -> None:
        images = pixels(indices=[7, 1, 2**40], output_type="pt").images
        assert images.shape == (3, 1, 16, 16)
        again = (images[1] * 255).round().numpy().astype(int)
        assert abs(again - world.images("tiny-ddim")[1].astype(int)).max() <= 3  # another batch flips a few roundings
        assert not torch.equal(images[0], images[1])

    def test_another_seed_gives_other_images(self, pixels: Any, world: Any) -> None:
        of_cell, other = (pixels(seed=seed, output_type="np").images for seed in (None, 1))
        assert of_cell.shape == (1, 16, 16, 1)
        assert of_cell.dtype == np.float32
        assert not np.array_equal(of_cell, other)
        np.testing.assert_array_equal(pixels(seed=np.int64(0), output_type="np").images, of_cell)

    def test_a_tuple_on_request(self, pixels: Any) -> None:
        (images,) = pixels(return_dict=False)
        assert len(images) == 1


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"prompt": "a bag"}, "samples without captions"),
            ({"num_images": 2, "indices": [0]}, "both say which images"),
            ({"num_images": 0}, "no image is asked for"),
            ({"indices": []}, "no image is asked for"),
            ({"num_images": -1}, "num_images is a whole number from 0"),
            ({"num_images": 1.5}, "num_images is a whole number"),
            ({"indices": [0, -1]}, "an index is a whole number"),
            ({"indices": ["a"]}, "an index is a whole number"),
            ({"seed": 2**64}, "seed is a whole number"),
            ({"seed": True}, "seed is a whole number"),
            ({"batch_size": 0}, "batch_size is a number of images, 1 or more"),
            ({"output_type": "latent"}, "output_type is one of pil, np, pt, not 'latent'"),
        ],
    )
    def test_what_cannot_be_is_told(self, options: Any, sentence: str, pixels: Any) -> None:
        with pytest.raises(ValueError, match=sentence):
            pixels(**options)

    def test_captions(self, text: Any) -> None:
        with pytest.raises(ValueError, match="give a prompt, or one for each image"):
            text()
        with pytest.raises(ValueError, match="there are 2 prompts for 3 images"):
            text(["a bag", "a coat"], num_images=3)
        with pytest.raises(ValueError, match="a caption, or a list of captions"):
            text([1])
        one_for_all = text("a bag", num_images=2, output_type="np").images
        np.testing.assert_array_equal(text(["a bag"] * 2, output_type="np").images, one_for_all)
        assert not np.array_equal(text(["a bag", "a coat"], output_type="np").images[1], one_for_all[1])


def test_the_progress_bar_is_the_users_to_configure(pixels: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pixels()
    assert capsys.readouterr().err == ""
    pixels.set_progress_bar_config(desc="sampling")
    try:
        pixels(num_images=2)
    finally:
        pixels.set_progress_bar_config(disable=True)
    shown = capsys.readouterr().err
    assert "sampling: 100%" in shown
    assert "4/4" in shown  # two images, two steps


def test_batches_are_cut_as_the_cells_are() -> None:
    of_cell = [[range(125), range(125, 250)], [range(250, 300)]]
    assert list(_shards(range(300), 125)) == of_cell
    assert list(_shards(range(100, 260), 125)) == [[range(25), range(25, 150)], [range(150, 160)]]
    assert list(_shards(range(240, 260), 1000)) == [[range(10)], [range(10, 20)]]
    assert list(_shards([5, 3, 400], 2)) == [[range(2), range(2, 3)]]


class TestWhatDiffusersLetsAnybodyDo:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                lambda pipeline: pipeline.to(torch.bfloat16),
                r"the unet was cast to torch\.bfloat16, so the images would",
            ),
            (lambda pipeline: pipeline.vae.to(torch.float64), r"the vae was cast to torch\.float64"),
            (
                lambda pipeline: pipeline.unet.mid_block.attentions[0].set_processor(AttnProcessor2_0()),
                "the unet got other attention processors",
            ),
            (lambda pipeline: setattr(pipeline, "unet", torch.nn.Linear(1, 1)), "the unet was replaced"),
        ],
        ids=["half", "double", "attention", "another"],
    )
    def test_what_passes_quantization_by_is_refused(
        self, change: Any, sentence: str, exported: Callable[[str], Path]
    ) -> None:
        pipeline = qbench.load_quantized(exported("tiny-ldm"), device="cpu")
        change(pipeline)
        with pytest.raises(StageError, match=sentence):
            pipeline()

    def test_grids_follow_the_denoiser(self, exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """As on an accelerator, where ``.to`` moves modules and knows nothing of grids."""
        pipeline = qbench.load_quantized(exported("tiny-ddim"), device="cpu")
        pipeline.unet.to("meta")
        denoiser = pipeline._placed()
        assert denoiser.device.type == "meta"
        grids = [tap.grid for tap in denoiser.model.taps.values() if tap.grid is not None]
        assert {tensor.device.type for grid in grids for tensor in grid.tensors().values()} == {"meta"}


class TestFolders:
    def test_it_is_saved_by_copying(self, exported: Callable[[str], Path], pixels: Any, tmp_path: Path) -> None:
        pixels.save_pretrained(tmp_path / "again")
        source = exported("tiny-ddim")
        for each in [path for path in source.rglob("*") if path.is_file()]:
            assert (tmp_path / "again" / each.relative_to(source)).read_bytes() == each.read_bytes()
        loaded = QuantizedPipeline.from_pretrained(tmp_path / "again")
        assert loaded.info == pixels.info
        with pytest.raises(ExportError, match="nothing is overwritten"):
            pixels.save_pretrained(tmp_path / "again")
        with pytest.raises(ValueError, match="push_to_hub cannot be chosen"):
            pixels.save_pretrained(tmp_path / "other", push_to_hub=True)
        with pytest.raises(ValueError, match="takes no torch_dtype"):
            QuantizedPipeline.from_pretrained(tmp_path / "again", torch_dtype=torch.float16)

    def test_what_was_altered_since_is_not_copied(self, own_copy: Path, tmp_path: Path) -> None:
        pipeline = qbench.load_quantized(own_copy, device="cpu")
        (own_copy / "unet" / "config.json").write_text("{}")
        with pytest.raises(DataError, match="was altered"):
            pipeline.save_pretrained(tmp_path / "to")

    def test_it_is_made_from_a_folder_only(self, pixels: Any) -> None:
        with pytest.raises(ValueError, match=r"qbench\.load_quantized"):
            QuantizedPipeline(pixels.unet)

    def test_another_device_than_there_is(self, exported: Callable[[str], Path]) -> None:
        with pytest.raises(QbenchError, match="not a device"):
            qbench.load_quantized(exported("tiny-ddim"), device="gpu")
