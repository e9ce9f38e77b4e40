"""The latent workloads that ship with qbench, trained on Fashion-MNIST: ``tiny-ldm``, ``tiny-ldm-kl``, ``tiny-sd``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from qbench.diffusion.sampler_settings import SamplerSettings
from qbench.errors import DataError
from qbench.workload import LoadedWorkload, WorkloadSettings
from qbench.zoo.fashion_workload import FashionWorkload
from qbench.zoo.schedules import LSUN_BEDROOMS, LSUN_CHURCHES, STABLE_DIFFUSION

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNet2DModel

    from qbench.diffusion.conditioning import Conditioning
    from qbench.zoo.first_stages import FirstStageName

SAMPLED_LIKE = "sampled like the model that it stands for"


class TinyLDMSettings(WorkloadSettings):
    """Settings of tiny-ldm."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED_LIKE)] = SamplerSettings(
        steps=20, eta=1.0, steps_offset=1, final_alpha="first"
    )


class TinyLDMKLSettings(WorkloadSettings):
    """Settings of tiny-ldm-kl."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED_LIKE)] = SamplerSettings(
        steps=20, steps_offset=1, final_alpha="first"
    )


class TinySDSettings(WorkloadSettings):
    """Settings of tiny-sd."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED_LIKE)] = SamplerSettings(
        name="plms", steps=20, steps_offset=1, final_alpha="first", guidance_scale=3.0
    )


class _LatentWorkload(FashionWorkload):
    """A denoiser on the latents of a first stage."""

    image_shape = (1, 32, 32)

    def _loaded(
        self,
        unet: UNet2DModel | UNet2DConditionModel,
        first_stage: FirstStageName,
        conditioning: Conditioning | None = None,
    ) -> LoadedWorkload:
        from qbench.diffusion.codecs import DiffusersFirstStage
        from qbench.diffusion.unet_structure import unet_structure
        from qbench.zoo.first_stages import load_first_stage

        codec = DiffusersFirstStage(load_first_stage(first_stage).module)
        return LoadedWorkload(unet, unet_structure(unet), codec, conditioning)


class TinyLDM(_LatentWorkload):
    """Unconditional denoiser of 3x8x8 latents with a codebook, laid out like LDM-4 on LSUN-Bedrooms."""

    settings_class = TinyLDMSettings
    title = "latent UNet of 1.6 M parameters on 32x32 Fashion-MNIST, VQ first stage, DDIM with eta 1"
    latent_shape = (3, 8, 8)
    schedule = LSUN_BEDROOMS
    weight_names = ("tiny-ldm", "fashion-vq")

    def load(self) -> LoadedWorkload:
        """Load the shipped model."""
        from qbench.zoo.latent_networks import tiny_ldm_denoiser
        from qbench.zoo.networks import load_weights
        from qbench.zoo.paths import weights_path

        unet = tiny_ldm_denoiser()
        load_weights(unet, weights_path("tiny-ldm"))
        return self._loaded(unet, "fashion-vq")


class TinyLDMKL(_LatentWorkload):
    """Unconditional denoiser of 4x8x8 latents, laid out like LDM-8 on LSUN-Churches."""

    settings_class = TinyLDMKLSettings
    title = "latent UNet of 1.4 M parameters on 32x32 Fashion-MNIST, KL first stage, DDIM"
    latent_shape = (4, 8, 8)
    schedule = LSUN_CHURCHES
    weight_names = ("tiny-ldm-kl", "fashion-kl")

    def load(self) -> LoadedWorkload:
        """Load the shipped model."""
        from qbench.zoo.latent_networks import tiny_ldm_kl_denoiser
        from qbench.zoo.networks import load_weights
        from qbench.zoo.paths import weights_path

        unet = tiny_ldm_kl_denoiser()
        load_weights(unet, weights_path("tiny-ldm-kl"))
        return self._loaded(unet, "fashion-kl")


class TinySD(_LatentWorkload):
    """Denoiser of 4x8x8 latents that follows captions, laid out like Stable Diffusion; sampled with guidance."""

    settings_class = TinySDSettings
    title = "text-to-image model of 1.7 M parameters on 32x32 Fashion-MNIST, KL first stage, PLMS, guidance 3"
    latent_shape = (4, 8, 8)
    schedule = STABLE_DIFFUSION
    weight_names = ("tiny-sd", "fashion-kl")
    has_captions = True

    def load(self) -> LoadedWorkload:
        """Load the shipped model."""
        from qbench.zoo.text_models import load_tiny_sd

        unet, conditioning = load_tiny_sd()
        return self._loaded(unet, "fashion-kl", conditioning)

    def captions(self, indices: range) -> Sequence[str]:
        """Return captions of Fashion-MNIST's test images, in their order."""
        from qbench.zoo.caption_lists import evaluation_captions

        captions = evaluation_captions()
        if indices.stop > len(captions):
            raise DataError(
                f"the workload {self.name!r} has {len(captions):,} captions, and {indices.stop:,} are asked for: ask "
                "for fewer samples"
            )
        return captions[indices.start : indices.stop]

    def calibration_captions(self, indices: range) -> Sequence[str]:
        """Return captions of some of Fashion-MNIST's training images; behind the last one the first comes again."""
        from qbench.zoo.caption_lists import calibration_captions

        captions = calibration_captions()
        return [captions[index % len(captions)] for index in indices]
