"""Files that the papers' authors published, with what is known of each to tell it from another.

Where ``digest`` is absent nobody published one; that of the first download is kept and every later one must have it.
Sizes of assets that say "about" in a comment were worked out from parameters, for the user to plan with.
"""

from functools import cache

from qbench.workloads.assets import Address, Asset, Home, HubFolder

INCEPTION = Address(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    size=95_628_359,
    # The name holds the first eight digits; the others are those that several projects check the same file against.
    digest="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    home=Home.TORCH_HUB,
)
ALEXNET = Address(
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    digest="7be5be79",  # in the name, as for all of torchvision's weights
    home=Home.TORCH_HUB,
)
ALEXNET_BYTES = 244_000_000  # about: 61.1 M parameters in float32

DDPM_CIFAR10 = Asset(
    "DDPM of CIFAR-10",
    HubFolder(
        "google/ddpm-cifar10-32",
        "267b167dc01f0e4e61923ea244e8b988f84deb80",
        ("config.json", "diffusion_pytorch_model.safetensors|diffusion_pytorch_model.bin"),
    ),
    143_000_000,  # 35.75 M parameters in float32
)
STABLE_DIFFUSION_1_4 = Asset(
    "Stable Diffusion v1.4",
    HubFolder(
        "CompVis/stable-diffusion-v1-4",
        "133a221b8aa7292a167afc5127cb63fb5005638b",
        (
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors|unet/diffusion_pytorch_model.bin",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors|vae/diffusion_pytorch_model.bin",
            "text_encoder/config.json",
            "text_encoder/model.safetensors|text_encoder/pytorch_model.bin",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
        ),
    ),
    4_270_000_000,  # 859.5 M, 83.7 M and 123.1 M parameters in float32
)

_LATENT_DIFFUSION = "https://ommer-lab.com/files/latent-diffusion"
LDM_BEDROOMS = Asset(
    "LDM-4 of LSUN bedrooms, with its first stage",
    Address(f"{_LATENT_DIFFUSION}/lsun_bedrooms.zip", member="model.ckpt"),
    2_400_000_000,  # about: 274 M parameters twice, with their moving average, and 55 M of the first stage
)
LDM_CHURCHES = Asset(
    "LDM-8 of LSUN churches, with its first stage",
    Address(f"{_LATENT_DIFFUSION}/lsun_churches.zip", member="model.ckpt"),
    2_700_000_000,  # about: 295 M parameters twice, with their moving average, and 84 M of the first stage
)
VQ_F4 = Asset(
    "first stage VQ-f4",
    Address(f"{_LATENT_DIFFUSION}/vq-f4.zip", member="model.ckpt"),
)
KL_F8 = Asset(
    "first stage KL-f8",
    Address(f"{_LATENT_DIFFUSION}/kl-f8.zip", member="model.ckpt"),
)

CIFAR10 = Asset(
    "CIFAR-10, binary version: the folder with its training batches",
    # The page of CIFAR-10 gives an MD5 (c32a1d4ab5d03f1284b67883e8d87530); the SHA-256 is that of the same file in
    # the lists of checksums of several projects that read it.
    Address(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170_052_171,
        digest="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        members=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    ),
    170_052_171,
)
LSUN_BEDROOM_STATISTICS = Asset(
    "reference batch of LSUN bedrooms of guided-diffusion",
    Address(
        "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/lsun/bedroom/"
        "VIRTUAL_lsun_bedroom256.npz"
    ),
)
COCO2014_STATISTICS = Asset(
    "statistics of COCO 2014 val images of MLPerf inference",
    Address(
        "https://github.com/mlcommons/inference/raw/4b1d1156c23965172ae56eacdd8372f8897eb771/text_to_image/tools/"
        "val2014.npz"
    ),
    34_000_000,  # about: mean and covariance of 2,048 features in float64
)
LSUN_CHURCHES = Asset(
    "LSUN churches, training images",
    Address(
        "http://dl.yf.io/lsun/scenes/church_outdoor_train_lmdb.zip",
        members=("church_outdoor_train_lmdb/data.mdb", "church_outdoor_train_lmdb/lock.mdb"),
    ),
    2_300_000_000,  # about, as LSUN's page says
)
LSUN_CHURCHES_FOLDER = "church_outdoor_train_lmdb"
"""Within what the asset comes to."""


@cache
def coco2014_val() -> Asset:
    """The images of the 5,000 captions, taken out of the archive of all 40,504."""
    from qbench.workloads.coco_captions import coco2014_captions

    files = coco2014_captions().files or ()
    return Asset(
        "COCO 2014 val, the images of the 5,000 captions",
        Address(
            "http://images.cocodataset.org/zips/val2014.zip",
            members=tuple(f"{COCO2014_VAL_FOLDER}/{name}" for name in files),
        ),
        6_645_000_000,  # about: the whole archive is downloaded
    )


COCO2014_VAL_FOLDER = "val2014"
"""Within what the asset comes to."""
