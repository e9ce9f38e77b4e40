from qbench.workloads.coco_captions import CALIBRATION
from qbench.workloads.composed_captions import SCENES, composed_captions


def test_the_shipped_captions_are_what_is_composed() -> None:
    assert CALIBRATION.read_text(encoding="utf-8").splitlines() == composed_captions()


def test_all_scenes_are_in_a_short_list() -> None:
    few = composed_captions(len(SCENES))
    assert len(set(few)) == len(SCENES)
    for scene, caption in zip(SCENES, few, strict=True):
        assert any(subject in caption.lower() for subject in scene.subjects)


def test_sentences_are_well_formed() -> None:
    for caption in composed_captions():
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert "  " not in caption
        assert caption.isascii()
