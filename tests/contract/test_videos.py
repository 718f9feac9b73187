"""The video processor of a LLaVA-ViT folder: through the Auto classes, in the pipeline, and kept when it is saved."""

import numpy as np
import pytest
import transformers
from kit import folder, load, run
from test_pipelines import assert_scores


def clip():
    """Ten frames in which a bright square moves over a ramp, uint8 (T, H, W, C)."""
    frames = np.tile(np.arange(48, dtype=np.uint8)[:, None, None], (10, 1, 60, 3))
    for step, frame in enumerate(frames):
        frame[12:28, 4 * step : 4 * step + 16] = 250
    return frames


def processor(path, auto_class="AutoProcessor"):
    return getattr(transformers, auto_class).from_pretrained(str(path), trust_remote_code=True)


def test_frames_through_the_auto_class():
    for name in ("llava_vit_base", "llava_vit_video", "llava_vit_image"):
        source = folder(name)
        made, model = processor(source.path), load(source, auto_class="AutoModel")
        inputs = made(videos=list(clip()), return_tensors="pt", selection="difference", max_visible_patches=20)
        visible = inputs["visible_indices"]
        patches = inputs["pixel_values"].shape[2] * (made.size // made.patch_size) ** 2
        assert made.patch_size == model.config.patch_size
        assert visible.shape == (1, 20) and bool((visible.diff() > 0).all()) and int(visible.max()) < patches
        assert run(model, dict(inputs)).last_hidden_state.shape == (1, 20, model.config.hidden_size)


def test_auto_video_processor(not_applicable):
    if not hasattr(transformers, "AutoVideoProcessor"):
        not_applicable("this release has no AutoVideoProcessor; AutoProcessor gives the same object")
    if (
        "torchvision" in getattr(transformers.AutoVideoProcessor, "_backends", ())
        and not transformers.utils.is_torchvision_available()
    ):
        not_applicable(
            "this release has no AutoVideoProcessor without torchvision; AutoProcessor gives the same object"
        )
    path = folder("llava_vit_video").path
    assert processor(path, "AutoVideoProcessor").to_dict() == processor(path).to_dict()


def test_saved_beside_the_model(tmp_path):
    source = folder("llava_vit_video")
    load(source).save_pretrained(tmp_path)
    processor(source.path).save_pretrained(tmp_path)
    for name in (
        "video_preprocessor_config.json",
        "preprocessor_config.json",
        *(file.name for file in source.path.glob("video_*.py")),
    ):
        assert (tmp_path / name).read_bytes() == (source.path / name).read_bytes(), name
    expected = processor(source.path)(videos=clip(), selection="none")["pixel_values"]
    assert np.array_equal(processor(tmp_path)(videos=clip(), selection="none")["pixel_values"], expected)


def test_video_classification_pipeline():
    source = folder("llava_vit_video")
    inputs = processor(source.path)(videos=clip(), return_tensors="pt", selection="difference")
    pipe = transformers.pipeline("video-classification", model=str(source.path), trust_remote_code=True)
    assert_scores(pipe(clip(), selection="difference"), run(load(source), dict(inputs)).logits)


def test_video_classification_of_a_file(tmp_path, not_applicable):
    try:
        import av
    except ImportError:
        not_applicable("PyAV is not installed; frames given as arrays work")
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height = clip().shape[2], clip().shape[1]
        for frame in clip():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    source = folder("llava_vit_video")
    inputs = processor(source.path)(videos=tmp_path / "clip.mp4", return_tensors="pt")
    answer = transformers.pipeline("video-classification", model=str(source.path), trust_remote_code=True)(
        str(tmp_path / "clip.mp4")
    )
    assert inputs["pixel_values"].shape[2] == len(clip())
    assert_scores(answer, run(load(source), dict(inputs)).logits)


def test_a_folder_without_the_processor_says_so(tmp_path):
    load(folder("llava_vit_video")).save_pretrained(tmp_path)
    with pytest.raises(OSError, match="video_p"):
        transformers.pipeline("video-classification", model=str(tmp_path), trust_remote_code=True)


def test_image_folders_keep_their_pipeline():
    for name, tasks in (
        ("llava_vit_image", []),
        ("llava_vit_base", []),
        ("llava_vit_video", ["video-classification"]),
        ("llava_vit_native", ["image-classification"]),
    ):
        assert list(load(folder(name)).config.custom_pipelines) == tasks
