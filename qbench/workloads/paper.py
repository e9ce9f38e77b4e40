"""The workloads of Q-Diffusion's tables (arXiv 2302.04304): DDIM on CIFAR-10, two LDMs on LSUN, Stable Diffusion v1.4.

Checkpoints, samplers and real images are those of the authors' code (github.com/Xiuyu-Li/q-diffusion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from qbench.diffusion.sampler_settings import SamplerSettings, ScheduleSettings
from qbench.errors import DataError
from qbench.workloads import published_files
from qbench.workloads.configurations import LDM_BEDROOMS, LDM_CHURCHES, STABLE_DIFFUSION_V1
from qbench.workloads.pipeline_workload import PipelineSettings, PipelineWorkload, captions_in
from qbench.workloads.reference_settings import COCO, LSUN, ReferenceSettings

if TYPE_CHECKING:
    from qbench.workloads.assets import Asset
    from qbench.workloads.caption_file import CaptionList
    from qbench.workloads.pipeline_folder import PipelineFolder

SAMPLED = "how images are sampled; the default is that of the paper's code"


class DDIMCIFAR10Settings(PipelineSettings):
    """Settings of ddim-cifar10."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED)] = SamplerSettings(steps=100, spacing="quad")


class LDMBedroomSettings(PipelineSettings):
    """Settings of ldm-lsun-bedroom."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED)] = SamplerSettings(
        steps=200, eta=1.0, steps_offset=1, final_alpha="first"
    )


class LDMChurchSettings(PipelineSettings):
    """Settings of ldm-lsun-church."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED)] = SamplerSettings(
        steps=500, steps_offset=1, final_alpha="first"
    )


class StableDiffusionSettings(PipelineSettings):
    """Settings of sd-v1-4."""

    sampler: Annotated[SamplerSettings, Field(description=SAMPLED)] = SamplerSettings(
        name="plms", steps=50, steps_offset=1, final_alpha="first", guidance_scale=7.5
    )


class PaperWorkload(PipelineWorkload):
    """A workload with the noise schedule of the paper, wherever its model is from."""

    schedule: ScheduleSettings

    def check_folder(self, folder: PipelineFolder) -> None:
        """Refuse a folder whose scheduler says another noise schedule."""
        if folder.schedule not in (None, self.schedule):
            raise DataError(
                f"{folder.scheduler} says another noise schedule than that of {self.name}, so this is another model: "
                "write it as 'pipeline' in the suite, under a name of its own"
            )


class DDIMCIFAR10(PaperWorkload):
    """DDPM's UNet of CIFAR-10, DDIM with quadratic steps; x_0 is not clipped.

    The published figures are of the original EMA checkpoint. Whether the hub's copy has the same weights nobody has
    checked: the full-precision row decides.
    """

    settings_class = DDIMCIFAR10Settings
    title = "DDPM UNet of 35.7 M parameters on CIFAR-10, DDIM 100 quadratic steps, eta 0"
    paper = "Ho et al. 2020, arXiv 2006.11239; Song et al. 2021, arXiv 2010.02502"
    standin = "tiny-ddim"
    standin_settings: ClassVar[Mapping[str, Any]] = {"sampler": {"spacing": "quad"}}
    schedule = ScheduleSettings(beta_start=1e-4, beta_end=0.02)
    published = published_files.DDPM_CIFAR10
    reference_asset = published_files.CIFAR10
    real_images = "CIFAR-10 training images"
    settings: DDIMCIFAR10Settings

    @property
    def reference_settings(self) -> ReferenceSettings:
        """The 50,000 training images, untouched."""
        if self.settings.reference.place is not None:
            return self.settings.reference
        return ReferenceSettings(cifar10=str(published_files.CIFAR10.require()))


class LDMBedroom(PaperWorkload):
    """LDM-4 of LSUN-Bedrooms with its first stage VQ-f4."""

    settings_class = LDMBedroomSettings
    title = "LDM-4 UNet of 274 M parameters on LSUN-Bedrooms 256x256, VQ-f4, DDIM 200 steps, eta 1"
    paper = "Rombach et al. 2022, arXiv 2112.10752"
    standin = "tiny-ldm"
    schedule = ScheduleSettings(beta_start=0.0015, beta_end=0.0195, betas="scaled_linear")
    family = LDM_BEDROOMS
    published = published_files.LDM_BEDROOMS
    reference_asset = published_files.LSUN_BEDROOM_STATISTICS
    real_images = "LSUN bedrooms, statistics of guided-diffusion"
    settings: LDMBedroomSettings

    @property
    def reference_settings(self) -> ReferenceSettings:
        """Published statistics; where images are given, preprocessed as the authors did, unless said otherwise."""
        if self.settings.reference.place is not None:
            return _prepared(self.settings.reference)
        return ReferenceSettings(statistics=str(published_files.LSUN_BEDROOM_STATISTICS.require()))


class LDMChurch(PaperWorkload):
    """LDM-8 of LSUN-Churches with its first stage KL-f8.

    Q-Diffusion's README asks for 400 steps. CompVis' code makes 500 of them, as it takes every (1000 // 400)th of 1,000
    timesteps; so the paper says 500, and so does the default here.
    """

    settings_class = LDMChurchSettings
    title = "LDM-8 UNet of 295 M parameters on LSUN-Churches 256x256, KL-f8, DDIM 500 steps, eta 0"
    paper = "Rombach et al. 2022, arXiv 2112.10752"
    standin = "tiny-ldm-kl"
    schedule = ScheduleSettings(beta_start=0.0015, beta_end=0.0155, betas="scaled_linear")
    family = LDM_CHURCHES
    published = published_files.LDM_CHURCHES
    reference_asset = published_files.LSUN_CHURCHES
    real_images = "LSUN churches, training images"
    settings: LDMChurchSettings

    @property
    def reference_settings(self) -> ReferenceSettings:
        """The training images, preprocessed as the authors did, unless said otherwise."""
        if self.settings.reference.place is not None:
            return _prepared(self.settings.reference)
        found = published_files.LSUN_CHURCHES.require() / published_files.LSUN_CHURCHES_FOLDER
        return ReferenceSettings(lmdb=str(found), preprocessing=LSUN)


class StableDiffusion14(PaperWorkload):
    """Stable Diffusion v1.4 on the 5,000 captions of COCO 2014 val that MLPerf uses."""

    settings_class = StableDiffusionSettings
    title = "Stable Diffusion v1.4, UNet of 860 M parameters, 512x512, PLMS 50 steps, guidance 7.5, COCO captions"
    paper = "Rombach et al. 2022, arXiv 2112.10752"
    standin = "tiny-sd"
    schedule = ScheduleSettings(beta_start=0.00085, beta_end=0.012, betas="scaled_linear")
    family = STABLE_DIFFUSION_V1
    published = published_files.STABLE_DIFFUSION_1_4
    real_images = "the 5,000 COCO 2014 val images of the captions"
    settings: StableDiffusionSettings

    @property
    def reference_asset(self) -> Asset:  # type: ignore[override]
        """The images of COCO 2014 val."""
        return published_files.coco2014_val()

    @property
    def reference_settings(self) -> ReferenceSettings:
        """The images of the captions: the middle square at 512x512, unless said otherwise."""
        given = self.settings.reference
        if given.place is not None:
            is_default = given.preprocessing == ReferenceSettings().preprocessing
            return given.model_copy(update={"preprocessing": COCO}) if is_default else given
        found = published_files.coco2014_val().require() / published_files.COCO2014_VAL_FOLDER
        return ReferenceSettings(images=str(found), preprocessing=COCO)

    @property
    def reference_files(self) -> Sequence[str] | None:
        """The images of the 5,000 captions, wherever no others are given."""
        if self.settings.reference.place is not None or self.evaluation_captions is None:
            return None
        return self.evaluation_captions.files

    @cached_property
    def evaluation_captions(self) -> CaptionList | None:
        """COCO's, unless a file of others is given."""
        from qbench.workloads.coco_captions import coco2014_captions

        return captions_in(self.settings.captions) or coco2014_captions()

    @cached_property
    def captions_to_calibrate(self) -> CaptionList | None:
        """Those that ship, unless a file of others is given."""
        from qbench.workloads.coco_captions import coco2014_calibration_captions

        return captions_in(self.settings.calibration_captions) or coco2014_calibration_captions()


def _prepared(settings: ReferenceSettings) -> ReferenceSettings:
    """Return the settings with LSUN's preprocessing, where they ask for none of their own."""
    is_default = settings.preprocessing == ReferenceSettings().preprocessing
    return settings.model_copy(update={"preprocessing": LSUN}) if is_default else settings
