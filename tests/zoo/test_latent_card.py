import copy
from typing import Any

import pytest

from qbench.zoo.clip_training import CLIP_TINY
from qbench.zoo.first_stage_training import FASHION_KL, FASHION_VQ
from qbench.zoo.latent_card import clip_card, first_stage_card, latent_card
from qbench.zoo.latent_training import TINY_LDM, TINY_LDM_KL, TINY_SD
from qbench.zoo.latent_workloads import TinyLDM, TinyLDMKLSettings, TinyLDMSettings, TinySD, TinySDSettings
from qbench.zoo.settings import TrainingSettings


def run_of(settings: TrainingSettings) -> dict[str, Any]:
    return {
        "recipe": settings.described(),
        "training_seconds": 1234,
        "hardware": "one thread of a 3-core some-machine CPU",
        "versions": {"torch": "7.8.9", "diffusers": "4.5.6"},
        "sha256": "ab" * 32,
        "bytes": 7_654_321,
        "parameters": 3_210_987,
    }


def first_stage_facts(settings: TrainingSettings) -> dict[str, Any]:
    figures = {"scaling_factor": 1.314, "test_images": 8_765, "psnr": 23.456, "fd": 0.1234, "fd_test": 0.0567}
    return run_of(settings) | figures


def denoiser_facts(settings: TrainingSettings, sampler: object) -> dict[str, Any]:
    return run_of(settings) | {
        "samples": 1_999,
        "sampling_steps": [21, 51],
        "sampler": sampler.model_dump(mode="json"),
        "schedule": TinyLDM.schedule.model_dump(mode="json"),
        "held_out_loss": {"overall": 0.12345, "bands": {"0-49": 0.98765, "50-249": 0.55555}},
    }


VQ = first_stage_facts(FASHION_VQ) | {"codes": 512, "codes_used": 169}
LDM = denoiser_facts(TINY_LDM, TinyLDMSettings().sampler) | {"fd": {"21": 3.456, "51": 2.345}}
SD = denoiser_facts(TINY_SD, TinySDSettings().sampler) | {
    "schedule": TinySD.schedule.model_dump(mode="json"),
    "parameters_text": 78_464,
    "guidance": {"1": {"fd": 5.678, "score": 41.234, "score_shuffled": 12.345}},
    "score_real": 77.777,
}
CLIP = run_of(CLIP_TINY) | {
    "test_images": 8_765,
    "captions": 119,
    "score": 81.234,
    "score_shuffled": 12.345,
    "class_accuracy": 0.8765,
    "caption_accuracy": 0.4321,
}


@pytest.mark.parametrize(
    ("write", "facts", "figures"),
    [
        (
            first_stage_card,
            VQ,
            ["1.314", "23.46 dB", "0.123", "0.057", "169 of 512", "8,765", "2,400 iterations"],
        ),
        (first_stage_card, first_stage_facts(FASHION_KL), ["23.46 dB", "times their divergence"]),
        (latent_card, LDM, ["0.1235", "0.9877", "| fd, DDIM (eta 1), 21 steps | 3.46 |", "0.0015", "1,999 samples"]),
        (latent_card, LDM, ["The first 64 samples of seed 0, DDIM (eta 1), 51 steps", "8,000 iterations of 64"]),
        (latent_card, SD, ["| 1 | 5.68 | 41.23 | 12.35 |", "77.78", "PLMS, 21 steps", "PLMS, 51 steps, guidance 3"]),
        (latent_card, SD, ["0.00085", "one caption in ten is empty", "78,464 more parameters", "five wordings"]),
        (clip_card, CLIP, ["81.23", "12.35", "87.6%", "43.2%", "119 different captions", "3,000 iterations of 128"]),
    ],
)
def test_the_card_holds_its_figures(write, facts: dict[str, Any], figures: list[str]) -> None:
    before = copy.deepcopy(facts)
    text = write(facts)
    assert text == write(before)
    assert facts == before
    always = [
        f"# {facts['recipe']['name']}\n",
        "ab" * 32,
        "7,654,321 bytes",
        "3,210,987",
        "MIT licence",
        "21 minutes on one thread of a 3-core some-machine CPU",
        "diffusers 4.5.6, torch 7.8.9",
        f"python -m qbench.zoo.train {facts['recipe']['name']} --seed 0",
    ]
    assert [each for each in (*always, *figures) if each not in text] == []
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_only_what_has_codes_speaks_of_them_and_only_what_reads_captions_of_guidance() -> None:
    assert "codes that" not in first_stage_card(first_stage_facts(FASHION_KL))
    unconditional = latent_card(denoiser_facts(TINY_LDM_KL, TinyLDMKLSettings().sampler) | {"fd": {"21": 1.0}})
    assert "guidance" not in unconditional
    assert "aption" not in unconditional
    assert "DDIM (eta 0)" in unconditional
