"""Nothing that is read can run code: by what the sources say, and by what malicious files do."""

import ast
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qbench
import qbench_methods
from qbench.errors import QbenchError
from qbench.metrics.image_array import image_array
from qbench.metrics.statistics_file import array_names, read_all_statistics
from qbench.quant.checkpoint import load_checkpoint
from qbench.quant.packing import load_input_grids, load_weights
from qbench.records import read_record
from qbench.score_request import open_images, open_reference
from qbench.workloads.checkpoint_file import read_checkpoint
from qbench.workloads.cifar10_images import cifar10_pictures
from qbench.workloads.json_file import read_json
from qbench.yaml_file import read_yaml

FOLDERS = [Path(package.__file__).parent for package in (qbench, qbench_methods)]
SOURCES = [path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))]
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all", "torch.jit.load", "torch.hub.load", "np.fromregex", "pd.read_pickle", "pandas.read_pickle",
}  # fmt: skip
ALLOWED = {
    "qbench/workloads/checkpoint_file.py: pickle": "the name of the error that torch's unpickler for weights raises",
}
"""Each exception, with its reason."""


def name_of(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def says(call: ast.Call, keyword: str, value: Any) -> bool:
    return any(
        each.arg == keyword and isinstance(each.value, ast.Constant) and each.value.value is value
        for each in call.keywords
    )


def dangers(source: str) -> Iterator[str]:
    """Yield whatever in a source could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        if name in CALLS:
            yield name
        if name == "torch.load" and not says(node, "weights_only", True):
            yield "torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and not says(node, "allow_pickle", False):
            yield "np.load without allow_pickle=False"
        if name in ("np.save", "numpy.save") and says(node, "allow_pickle", True):
            yield "np.save of objects"
        if says(node, "shell", True):
            yield "a shell"
        if says(node, "trust_remote_code", True):
            yield "code from a hub"


def test_no_source_has_anything_that_runs_what_it_reads():
    found = {
        f"{path.relative_to(folder.parent).as_posix()}: {danger}"
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        for danger in dangers(path.read_text(encoding="utf-8"))
    }
    assert len(SOURCES) > 250
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import dill as d", "def f():\n    import marshal", "eval('1')",
        "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=True)",
        "yaml.load(t, Loader=x)", "subprocess.run('a', shell=True)", "os.system('a')", "m.f(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_search_finds_them(source: str):
    assert list(dangers(source))


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.mkdir, (str(self.target),))


@pytest.fixture
def pwned(tmp_path: Path) -> Iterator[Path]:
    """What would be there if anything had been run."""
    target = tmp_path / "pwned"
    yield target
    assert not target.exists()


def plain_pickle(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content))


def torch_pickle(path: Path, content: Any) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "more": content}, path)


def old_torch_pickle(path: Path, content: Any) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "more": content}, path, _use_new_zipfile_serialization=False)


def objects_npy(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        np.save(file, np.asarray([content, content], dtype=object), allow_pickle=True)


def objects_npz(path: Path, content: Any) -> None:
    array = np.asarray([content], dtype=object)
    with path.open("wb") as file:
        np.savez(file, array, mu=array, sigma=array, mu_s=array, sigma_s=array)


def squeezed_objects_npz(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, np.asarray([content], dtype=object))


def pickle_in_npz(path: Path, content: Any) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("arr_0.npy", "mu.npy", "sigma.npy"):
            archive.writestr(name, pickle.dumps(content))


WRITERS = (plain_pickle, torch_pickle, old_torch_pickle, objects_npy, objects_npz, squeezed_objects_npz, pickle_in_npz)


def model() -> Any:
    from qbench.bits import BitWidth
    from qbench.diffusion.structures import Structure
    from qbench.quant import QuantModel

    return QuantModel(torch.nn.Sequential(torch.nn.Linear(2, 2)), Structure(boundary_layers=("0",)), BitWidth(4, 8))


def as_folder_of_weights(path: Path) -> None:
    folder = path.parent / "folder"
    folder.mkdir()
    path.rename(folder / "diffusion_pytorch_model.safetensors")
    load_checkpoint(model(), folder)


def as_cifar10(path: Path) -> None:
    folder = path.parent / "cifar-10-batches-py"
    folder.mkdir()
    path.rename(folder / "data_batch_1")
    cifar10_pictures(folder)


def as_inception(path: Path) -> None:
    from qbench.metrics.inception_extractor import _network

    _network(path)


def as_reference(path: Path) -> None:
    if open_reference(path).holds_statistics("pooled"):
        read_all_statistics(path, ["pooled"])


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "packed weights": ("a.safetensors", lambda path: load_weights(model(), path)),
    "packed grids": ("a.safetensors", lambda path: load_input_grids(model(), path)),
    "safetensors": ("a.safetensors", read_checkpoint),
    "bin": ("a.bin", read_checkpoint),
    "ckpt": ("a.ckpt", read_checkpoint),
    "pt": ("a.pt", read_checkpoint),
    "pth": ("a.pth", read_checkpoint),
    "folder of weights": ("a.safetensors", as_folder_of_weights),
    "statistics npz": ("a.npz", lambda path: read_all_statistics(path, ["pooled", "spatial"])),
    "statistics safetensors": ("a.safetensors", lambda path: read_all_statistics(path, ["pooled"])),
    "statistics by name": ("a.safetensors", array_names),
    "reference": ("a.npz", as_reference),
    "images npy": ("a.npy", image_array),
    "images npz": ("a.npz", open_images),
    "CIFAR-10": ("a", as_cifar10),
    "Inception": ("a.pth", as_inception),
    "record": ("a.json", read_record),
    "suite": ("a.yaml", read_yaml),
    "configuration": ("config.json", read_json),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("write", WRITERS, ids=lambda each: each.__name__)
def test_a_malicious_file_is_refused_and_does_nothing(
    tmp_path: Path, pwned: Path, write: Callable[[Path, Any], None], name: str
):
    file, reader = READERS[name]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / file
    write(path, Malicious(pwned))
    with pytest.raises(QbenchError):
        reader(path)


def test_the_files_are_malicious(tmp_path: Path):
    path = tmp_path / "a"
    plain_pickle(path, Malicious(tmp_path / "ran"))
    pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir [pwned]", "python/object/new:os.mkdir [pwned]",
                                 "python/name:os.mkdir", "python/module:os", "python/tuple [1]"])  # fmt: skip
def test_yaml_that_names_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(f"name: !!{tag}\n")
    with pytest.raises(QbenchError, match=r"a\.yaml:1: not valid YAML"):
        read_yaml(tmp_path / "a.yaml")
    assert not (tmp_path / "pwned").exists()


def test_a_model_that_asks_for_its_own_code_is_not_given_it(tmp_path: Path, pwned: Path):
    """``auto_map`` and files of Python beside weights are what hubs run with ``trust_remote_code``."""
    import json

    from diffusers import UNet2DModel

    from qbench.workloads.loading import load_pipeline_folder

    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    UNet2DModel(**blocks, sample_size=8, layers_per_block=1, norm_num_groups=2, attention_head_dim=8).save_pretrained(
        tmp_path / "model"
    )
    config = tmp_path / "model" / "config.json"
    said = json.loads(config.read_text()) | {"auto_map": {"AutoModel": "own.Own"}, "_class_name": "Own"}
    config.write_text(json.dumps(said))
    (tmp_path / "model" / "own.py").write_text(f"import os\nos.mkdir({str(pwned)!r})\nclass Own: pass\n")
    with pytest.raises(QbenchError):
        load_pipeline_folder(tmp_path / "model")
