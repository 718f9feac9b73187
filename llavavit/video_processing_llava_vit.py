# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT's video processor: a video file, or frames, to the pixels, patches and positions that the model reads.

Source: the pipeline of OneVision-Encoder, arXiv 2602.08683. What decodes is in `video_reading_llava_vit.py`, what chooses
patches in `video_selection_llava_vit.py`.

1. One object serves videos and images: `AutoProcessor` and `AutoVideoProcessor` give it. Images go to the processor whose
   settings stand in preprocessor_config.json as ever, transformers' CLIP image processor or that of native resolution;
   the settings of videos stand in video_preprocessor_config.json.
2. Resizing is torch's antialiased bicubic on bytes, as in transformers' CLIP processor with torchvision: within one of 255
   levels of the one with Pillow, at a fifth of the time.
3. `pipeline("video-classification")` of transformers hands frames to the image processor, so that the model would see T
   images; the pipeline at the end of this file is what a folder with this processor gets instead.
"""

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ImageProcessingMixin
from transformers.utils import cached_file

from .image_processing_llava_vit import (
    CLIP_MEAN,
    CLIP_STD,
    LlavaViTImageProcessor,
    check_positive,
    check_triple,
    refuse_unknown,
)
from .video_reading_llava_vit import open_clip
from .video_selection_llava_vit import (
    CodecEnergy,
    DifferenceEnergy,
    luma,
    patch_positions,
    patch_scores,
    sample_indices,
    select_patches,
)

try:
    import av
except ImportError:
    av = None


VIDEO_CONFIG = "video_preprocessor_config.json"
IMAGE_CONFIG = "preprocessor_config.json"
IMAGE_MODULE = "image_processing_llava_vit"
SELECTIONS = ("codec", "difference", "none")
WIDEST = 8  # longer side to shorter: of a wider frame only the middle is resized, since the crop takes less still
MOST_PLACES = 2**16  # in time: far more than any model tells apart
READ_AHEAD = 2  # frames waiting to be resized: what a long clip of large frames costs in memory
READS = 4  # a file whose frame count is estimated wrongly is read twice, a damaged one again in one thread


# --- pixels -----------------------------------------------------------------------------------------------------------


def resize_and_crop(pixels, size):
    """The centre of a frame whose shorter side is made `size`: (H, W, 3) uint8 -> (size, size, 3) uint8, bicubic."""
    height, width = pixels.shape[:2]
    widest = WIDEST * min(height, width)
    pixels = center_crop(pixels, min(height, widest), min(width, widest))
    height, width = pixels.shape[:2]
    short = min(height, width)
    extent = (int(size * height / short), int(size * width / short))
    if extent != (height, width):
        frame = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
        frame = torch.nn.functional.interpolate(frame, size=extent, mode="bicubic", antialias=True)
        pixels = frame[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(center_crop(pixels, size, size))


def center_crop(pixels, height, width):
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def normalise(frames, mean, std):
    """Resized frames as the model reads them: a list of T (S, S, 3) uint8 -> (3, T, S, S) float32."""
    levels = (np.arange(256)[:, None] / 255 - np.asarray(mean)) / np.asarray(std)  # (256, 3)
    pixels = np.empty((3, len(frames), *frames[0].shape[:2]), dtype=np.float32)
    for number, frame in enumerate(frames):
        for channel in range(3):
            pixels[channel, number] = levels[:, channel].astype(np.float32)[frame[..., channel]]
    return pixels


# --- one clip ---------------------------------------------------------------------------------------------------------


class ClipReader:
    """Takes the sampled frames of one clip, in order, and makes what the model reads of them."""

    def __init__(self, options):
        self.options = options
        self.energy = {
            "codec": lambda: CodecEnergy(options["size"]),
            "difference": DifferenceEnergy,
            "none": lambda: None,
        }[options["selection"]]()
        self.frames, self.times, self.indices, self.scores = [], [], [], []

    def add(self, frame):
        """A `SampledFrame`: resizes it, and scores its patches against the frame before it."""
        size = self.options["size"]
        resized = resize_and_crop(frame.pixels, size)
        if self.energy is not None and frame.previous is not None:
            was_sampled = self.indices and self.indices[-1] == frame.index - 1
            previous = self.frames[-1] if was_sampled else resize_and_crop(frame.previous, size)
            self._score(self.energy.add(luma(previous), luma(resized)))
        elif self.energy is not None:
            self._score([np.zeros((size, size), dtype=np.float32)])  # nothing comes before the first frame
        self.frames.append(resized)
        self.times.append(frame.time)
        self.indices.append(frame.index)

    def _score(self, energies):
        self.scores += [patch_scores(energy, self.options["patch_size"]) for energy in energies]

    def finish(self):
        """pixel_values (3, T, S, S), visible_indices (N,), patch_positions (N, 3), and the frames' times and numbers."""
        options = self.options
        side = options["size"] // options["patch_size"]
        visible = np.arange(len(self.frames) * side * side)
        if self.energy is not None:
            self._score(self.energy.finish())
            visible = select_patches(
                np.stack(self.scores),
                options["patch_size"],
                options["max_visible_patches"],
                options["keep_first_frame"],
            )
        return {
            "pixel_values": normalise(self.frames, options["image_mean"], options["image_std"]),
            "visible_indices": visible,
            "patch_positions": patch_positions(visible, len(self.frames), side, options["num_places"]),
            "frame_times": self.times,
            "frame_indices": self.indices,
        }


def read_clip(clip, options, sample=True):
    """Reads one clip: while one thread decodes, another resizes and scores.

    Args:
        clip: What `open_clip` gives.
        options: The processor's arguments by name.
        sample: Whether to take `num_frames` of the frames, or all of them.

    Returns:
        What `ClipReader.finish` gives.

    Raises:
        ValueError: No frame can be decoded, or the file changes while it is read.
    """
    for _ in range(READS):
        indices = sample_indices(clip.frame_count, options["num_frames"] if sample else clip.frame_count)
        reader, waiting = ClipReader(options), deque()
        with ThreadPoolExecutor(1) as worker:
            for frame in clip.frames(indices, with_previous=options["selection"] != "none"):
                waiting.append(worker.submit(reader.add, frame))
                del frame
                while len(waiting) > READ_AHEAD:
                    waiting.popleft().result()
            for added in waiting:
                added.result()
        if clip.settled:
            clip.warn_of_damage()
            return reader.finish()
    raise ValueError(f"{clip.name}: gives another number of frames each time it is read; is it still being written?")


def as_clips(videos):
    """What the user gave as `videos`, as a list of sources that `open_clip` takes.

    Raises:
        ValueError: Nothing, a single image, or clips and frames in one list.
    """
    if isinstance(videos, Image.Image):
        raise ValueError("videos: one image is not a clip; give it as images=, or the clip's frames as a list")
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [videos]
    if not videos:
        raise ValueError("videos: the list is empty; give at least one clip")
    frames = [
        isinstance(entry, Image.Image) or (isinstance(entry, (np.ndarray, torch.Tensor)) and entry.ndim < 4)
        for entry in videos
    ]
    if all(frames):
        return [videos]
    if any(frames):
        raise ValueError("videos: the list holds frames and clips; give the frames of each clip as a list of their own")
    return list(videos)


# --- the batch --------------------------------------------------------------------------------------------------------


class LlavaViTVideoFeatures(BatchFeature):
    """What the model takes, `model(**features)`, and beside it what it does not take.

    Attributes:
        frame_times: For each clip, the times of its frames in seconds from the clip's start; None where they are not known.
        frame_indices: For each clip, the numbers of its frames in the source, from 0.
    """

    frame_times = frame_indices = ()

    def __getstate__(self):
        return {**super().__getstate__(), "frames": (self.frame_times, self.frame_indices)}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.frame_times, self.frame_indices = state["frames"]


def batch_clips(clips):
    """Stacks clips; one with fewer frames gets empty ones behind, which are no visible patches of it.

    Raises:
        ValueError: The clips have different numbers of visible patches, for which the model has no padding.
    """
    counts = [len(clip["visible_indices"]) for clip in clips]
    if len(set(counts)) > 1:
        raise ValueError(
            f"the clips of a batch must keep the same number of patches, got {', '.join(map(str, counts))} "
            f"(short clips have fewer in all); process them one by one, or set max_visible_patches to {min(counts)}"
        )
    longest = max(clip["pixel_values"].shape[1] for clip in clips)
    data = {key: np.stack([clip[key] for clip in clips]) for key in ("visible_indices", "patch_positions")}
    if len(clips) == 1:
        pixel_values = clips[0]["pixel_values"][None]
    else:
        pixel_values = np.zeros((len(clips), 3, longest, *clips[0]["pixel_values"].shape[2:]), dtype=np.float32)
        for row, clip in zip(pixel_values, clips):
            row[:, : clip["pixel_values"].shape[1]] = clip["pixel_values"]
    return {"pixel_values": pixel_values, **data}


# --- checks of the arguments ------------------------------------------------------------------------------------------


def check_size(size, patch_size):
    if (
        isinstance(size, dict)
        and len(set(size.values())) == 1
        and set(size) in ({"shortest_edge"}, {"height", "width"})
    ):
        size = next(iter(size.values()))
    size = check_positive("size", size)
    if size % patch_size:
        near = max(patch_size, round(size / patch_size) * patch_size)
        raise ValueError(f"size must be a multiple of the patch size {patch_size}, got {size}; {near} is the nearest")
    return size


# --- the processor ----------------------------------------------------------------------------------------------------

ARGUMENTS = (
    "num_frames",
    "num_places",
    "size",
    "patch_size",
    "max_visible_patches",
    "selection",
    "keep_first_frame",
    "image_mean",
    "image_std",
)
# What `from_pretrained` of transformers is given besides: where to look, and what concerns other processors.
HUB_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "proxies",
    "token",
    "revision",
    "local_files_only",
    "subfolder",
    "repo_type",
    "user_agent",
)
OTHER_ARGUMENTS = (
    "trust_remote_code",
    "code_revision",
    "use_fast",
    "backend",
    "resume_download",
    "use_auth_token",
    "return_unused_kwargs",
    "config",
)


class LlavaViTVideoProcessor(ImageProcessingMixin):
    r"""Turns video files or frames into what a LLaVA-ViT model reads; images too, by the folder's image processor.

    Args:
        num_frames (`int`): Frames T to sample, evenly from first to last. A shorter clip gives each frame once.
        num_places (`int`): Places in time on which the sampled frames are spread evenly, the first on the first and the
            last on the last, rounded down. With fewer places than frames some frames share one. As many places as frames
            gives each frame its own number. At most 65536.
        size (`int`): Pixels; the shorter side is made so long, then the centre is cut out. A multiple of `patch_size`.
        patch_size (`int`): Side p of the model's patches, pixels.
        max_visible_patches (`int`): How many patches of a clip to keep, of all frames together.
        selection (`str`, *optional*): "codec" keeps the patches with the most motion and residual (needs PyAV),
            "difference" those that differ most from the frame before, "none" or None all.
        keep_first_frame (`bool`): Every patch of the first frame comes before any other, as language models have it.
        image_mean, image_std (three `float`): Of the channels' values in [0, 1].
        image_settings (`dict`, *optional*): The content of preprocessor_config.json, for `images=`.

    Example:

    ```python
    >>> processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    >>> inputs = processor(videos="clip.mp4", return_tensors="pt")
    >>> features = model(**inputs)
    >>> inputs.frame_times[0][:2]  # seconds
    [0.0, 0.16]
    ```
    """

    model_input_names = ["pixel_values", "visible_indices", "patch_positions"]
    _auto_class = "AutoProcessor"

    def __init__(
        self,
        num_frames=64,
        num_places=64,
        size=224,
        patch_size=14,
        max_visible_patches=2048,
        selection="codec",
        keep_first_frame=False,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
        image_settings=None,
        **kwargs,
    ):
        refuse_unknown(
            type(self).__name__,
            [key for key in kwargs if key not in ("auto_map", "video_processor_type", "processor_class")],
            ARGUMENTS,
        )
        super().__init__()
        selection = "none" if selection is None else selection
        if selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)} or None, got {selection!r}")
        if not isinstance(keep_first_frame, bool):
            raise ValueError(f"keep_first_frame must be True or False, got {keep_first_frame!r}")
        self.num_frames = check_positive("num_frames", num_frames)
        self.num_places = check_positive("num_places", num_places)
        if self.num_places > MOST_PLACES:
            raise ValueError(f"num_places must be at most {MOST_PLACES}, got {num_places}")
        self.patch_size = check_positive("patch_size", patch_size)
        self.size = check_size(size, self.patch_size)
        self.max_visible_patches = check_positive("max_visible_patches", max_visible_patches)
        self.selection = selection
        self.keep_first_frame = keep_first_frame
        self.image_mean = check_triple("image_mean", image_mean, lambda number: True)
        self.image_std = check_triple("image_std", image_std, lambda number: number > 0)
        self.image_settings = None if image_settings is None else dict(image_settings)
        self._image_processor = None

    def __call__(self, videos=None, images=None, return_tensors=None, fps=None, do_sample_frames=True, **overrides):
        """Makes a batch of clips, or of images.

        Args:
            videos: A clip or a list of clips. A clip is a file's path, `bytes`, an open binary file, a list of frames (PIL
                images, arrays or tensors), or an array or tensor (T, H, W, C) or (T, C, H, W).
            images: In place of `videos`: what the folder's image processor takes, and gives.
            return_tensors: "pt", "np" or None (arrays).
            fps: Frames per second, for the times of frames that carry none.
            do_sample_frames: False takes every frame of a clip, whatever `num_frames` says.
            overrides: Arguments of the constructor, for this call only.

        Returns:
            LlavaViTVideoFeatures with `pixel_values` (B, 3, T, S, S) float32, `visible_indices` (B, N) int64 and
            `patch_positions` (B, N, 3) int64; and with the attributes `frame_times` and `frame_indices`.

        Raises:
            ValueError: A clip cannot be read, an argument is out of its range, or the clips do not fit in one batch.
        """
        if (videos is None) == (images is None):
            raise ValueError("give videos= or images=, one of the two")
        if images is not None:
            return self.image_processor(images, return_tensors=return_tensors, **overrides)
        refuse_unknown(type(self).__name__, overrides, ARGUMENTS)
        if fps is not None and not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps!r}")
        options = {key: getattr(type(self)(**{**self._arguments(), **overrides}), key) for key in ARGUMENTS}
        if options["selection"] == "codec" and av is None and "selection" not in overrides:
            options["selection"] = "difference"
        sources = as_clips(videos)
        names = (
            ["the clip"]
            if len(sources) == 1
            else [f"clip {number} of {len(sources)}" for number in range(1, len(sources) + 1)]
        )
        opened = [open_clip(source, fps, name) for source, name in zip(sources, names)]
        if options["selection"] != self.selection and "selection" not in overrides:
            warnings.warn(
                "codec selection needs PyAV (pip install av); patches are selected by difference instead", stacklevel=2
            )
        clips = [read_clip(clip, options, do_sample_frames) for clip in opened]
        features = LlavaViTVideoFeatures(batch_clips(clips), tensor_type=return_tensors)
        features.frame_times = [clip["frame_times"] for clip in clips]
        features.frame_indices = [clip["frame_indices"] for clip in clips]
        return features

    def preprocess(self, videos=None, **kwargs):
        """The library's other name for calling the processor."""
        return self(videos, **kwargs)

    @property
    def image_processor(self):
        """The folder's image processor, which takes `images=`: transformers' `CLIPImageProcessor` if it names no other.

        Raises:
            ValueError: There were no settings where this processor came from.
        """
        if self.image_settings is None:
            raise ValueError(
                f"images= needs the settings of an image processor, and there was no {IMAGE_CONFIG} where this processor came from"
            )
        if self._image_processor is None and self._has_native_resolution():
            self._image_processor = LlavaViTImageProcessor.from_dict(self.image_settings)
        if self._image_processor is None:
            # Imported on demand: newer releases remark on its backends, which users of videos need not hear.
            from transformers import CLIPImageProcessor

            own = ("auto_map", "image_processor_type", "processor_class")
            self._image_processor = CLIPImageProcessor(
                **{key: value for key, value in self.image_settings.items() if key not in own}
            )
        return self._image_processor

    def _has_native_resolution(self):
        return (self.image_settings or {}).get("image_processor_type") == LlavaViTImageProcessor.__name__

    def _arguments(self):
        return {key: getattr(self, key) for key in ARGUMENTS}

    # --- loading and saving -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Loads video_preprocessor_config.json, and preprocessor_config.json where there is one, from a folder or a repository.

        Args:
            pretrained_model_name_or_path: The folder, or the repository's name.
            kwargs: Arguments of the constructor win over the file's; the rest is where to look (`revision`, `token`, ...).

        Raises:
            OSError: There is no video_preprocessor_config.json.
            ValueError: An argument is unknown or out of its range.
        """
        name = str(pretrained_model_name_or_path)
        hub = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        arguments = {
            key: value for key, value in kwargs.items() if key not in OTHER_ARGUMENTS and not key.startswith("_")
        }
        refuse_unknown(cls.__name__, arguments, ARGUMENTS)
        content = read_json(cached_file(name, VIDEO_CONFIG, **hub))
        image_config = cached_file(name, IMAGE_CONFIG, _raise_exceptions_for_missing_entries=False, **hub)
        image_settings = None if image_config is None else read_json(image_config)
        return cls.from_dict(
            content, image_settings, **arguments, return_unused_kwargs=kwargs.get("return_unused_kwargs")
        )

    @classmethod
    def from_dict(cls, content, image_settings=None, **kwargs):
        """From the content of video_preprocessor_config.json; arguments in `kwargs` win, keys that are none are left out."""
        arguments = {key: value for key, value in {**content, **kwargs}.items() if key in ARGUMENTS}
        processor = cls(**arguments, image_settings=image_settings)
        return (processor, {}) if kwargs.get("return_unused_kwargs") else processor

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoProcessor"):
        """Nothing to choose: what is saved names this class for AutoProcessor and AutoVideoProcessor, whoever loaded it."""

    def to_dict(self):
        """The content of video_preprocessor_config.json."""
        reference = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
        return {
            **self._arguments(),
            "video_processor_type": type(self).__name__,
            "auto_map": {"AutoProcessor": reference, "AutoVideoProcessor": reference},
        }

    def to_json_string(self):
        return json_of(self.to_dict())

    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        """Writes both configurations and the code, so that the Auto classes load this processor from the folder.

        Args:
            save_directory: The folder; made where it is missing.
            push_to_hub: Whether to upload it afterwards; `kwargs` are those of transformers' `push_to_hub`.

        Returns:
            The paths of the configurations.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"{folder}: is a file; give a folder")
        folder.mkdir(parents=True, exist_ok=True)
        written = [write_whole(folder / VIDEO_CONFIG, self.to_json_string())]
        if self.image_settings is not None:
            entries = {"AutoProcessor": self.to_dict()["auto_map"]["AutoProcessor"]}
            if self._has_native_resolution():
                entries["AutoImageProcessor"] = f"{IMAGE_MODULE}.{LlavaViTImageProcessor.__name__}"
            written.append(write_whole(folder / IMAGE_CONFIG, json_of({**self.image_settings, "auto_map": entries})))
        for file in code_files(type(self)):
            if file.resolve() != (folder / file.name).resolve():
                shutil.copyfile(file, folder / file.name)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return written


def code_files(cls):
    """The files that a Hub folder needs for the class: its own and the siblings that it imports."""
    folder = Path(sys.modules[LlavaViTVideoProcessor.__module__].__file__).parent
    own = Path(sys.modules[cls.__module__].__file__)
    names = ("video_processing_llava_vit", "video_reading_llava_vit", "video_selection_llava_vit", IMAGE_MODULE)
    return list(dict.fromkeys([own, *(folder / f"{name}.py" for name in names)]))


def json_of(content):
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_whole(path, text):
    """Writes a small file so that it is never seen half-written. Returns its path."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
    return str(path)


# --- the pipeline -----------------------------------------------------------------------------------------------------


def chosen_processor(given):
    """The video processor among the processors that a pipeline was given by name; None where it was given none.

    Raises:
        ValueError: One is another processor, or a name of one, or they are not the same.
    """
    for name, value in given.items():
        if type(value).__name__ != LlavaViTVideoProcessor.__name__:  # or of another copy of this file
            found = repr(value) if isinstance(value, (str, os.PathLike)) else type(value).__name__
            raise ValueError(
                f"{name} must be a {LlavaViTVideoProcessor.__name__}, which reads this model's clips, got {found}; "
                "load one with AutoProcessor.from_pretrained, or leave it out"
            )
    chosen = next(iter(given.values()), None)
    if any(value is not chosen for value in given.values()):
        raise ValueError(f"{' and '.join(given)} are different processors; give one")
    return chosen


@lru_cache(maxsize=1)
def video_classification_pipeline():
    # Made on demand: importing the library's pipelines takes seconds, and only pipeline() needs them.
    from transformers import Pipeline

    class LlavaViTVideoClassificationPipeline(Pipeline):
        """`pipeline("video-classification", model=folder, trust_remote_code=True)`: a video file's labels and scores.

        Takes what the processor takes as one clip, a list of frames excepted, which a pipeline takes for a list of clips:
        give those as one array (T, H, W, C).
        """

        _load_processor = _load_tokenizer = _load_image_processor = _load_video_processor = _load_feature_extractor = (
            False
        )

        def __init__(self, model, *args, image_processor=None, video_processor=None, processor=None, **kwargs):
            given = {"processor": processor, "video_processor": video_processor, "image_processor": image_processor}
            processor = chosen_processor({name: value for name, value in given.items() if value is not None})
            if processor is None:
                revision = getattr(model.config, "_commit_hash", None) or "main"
                processor = LlavaViTVideoProcessor.from_pretrained(model.config.name_or_path, revision=revision)
            # Every release takes an image processor, and not every one a video processor.
            super().__init__(model, *args, image_processor=processor, **kwargs)

        def check_model_type(self, supported_models):
            """Nothing to check: the library's list knows its own models only, and would log an error for this one."""

        def _sanitize_parameters(self, top_k=None, function_to_apply=None, **overrides):
            refuse_unknown(
                "the video-classification pipeline", overrides, ("top_k", "function_to_apply", "fps", *ARGUMENTS)
            )
            if function_to_apply not in (None, "softmax", "sigmoid", "none"):
                raise ValueError(f"function_to_apply must be softmax, sigmoid or none, got {function_to_apply!r}")
            chosen = {"top_k": top_k, "function_to_apply": function_to_apply}
            return overrides, {}, {key: value for key, value in chosen.items() if value is not None}

        def preprocess(self, video, **overrides):
            return self.image_processor(videos=video, return_tensors="pt", **overrides).to(self.model.dtype)

        def _forward(self, model_inputs):
            return self.model(**model_inputs)

        def postprocess(self, model_outputs, top_k=5, function_to_apply=None):
            usual = {"regression": "none", "multi_label_classification": "sigmoid"}
            function = function_to_apply or usual.get(self.model.config.problem_type, "softmax")
            logits = model_outputs["logits"][0].float()
            scores = {"none": logits, "sigmoid": logits.sigmoid(), "softmax": logits.softmax(-1)}[function]
            values, labels = scores.topk(min(top_k, len(scores)))
            return [
                {"score": value, "label": self.model.config.id2label[label]}
                for value, label in zip(values.tolist(), labels.tolist())
            ]

    return LlavaViTVideoClassificationPipeline


def __getattr__(name):
    if name == "LlavaViTVideoClassificationPipeline":
        return video_classification_pipeline()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["LlavaViTVideoProcessor"]
