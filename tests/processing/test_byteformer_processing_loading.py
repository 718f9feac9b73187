"""Saved folders in a fresh process that cannot see the repository: processors through the Auto classes, and both pipelines."""

import json
import os
import struct
import subprocess
import wave
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from byteformer import (
    ByteFormerConfig,
    ByteFormerFeatureExtractor,
    ByteFormerForAudioClassification,
    ByteFormerForImageClassification,
    ByteFormerImageProcessor,
)

pytestmark = pytest.mark.usefixtures("warm_python")

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "conv_kernel_size": 8, "window_sizes": [32], "window_shifts": [0, 16],
    "downsample": [True, False], "max_position_embeddings": 50000,
}  # fmt: skip
RATE = 16000

# What a user does with the folders; answers go to stdout as one line of JSON.
USER = """
import json, logging, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, pipeline

speech = np.load("speech.npy")
answers = {"repository": [name for name in sys.modules if name.split(".")[0] == "byteformer"]}
processor = AutoImageProcessor.from_pretrained("image-model", trust_remote_code=True)
answers["ids"] = processor(Image.open("photo.jpg"), return_tensors="np")["input_ids"][0].tolist()
extractor = AutoFeatureExtractor.from_pretrained("audio-model", trust_remote_code=True)
answers["wav"] = extractor(speech, sampling_rate=16000, return_tensors="np")["input_ids"][0].tolist()

def scores(answer):
    return {entry["label"]: entry["score"] for entry in answer}

class Kept(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())

warnings = []
logging.getLogger().addHandler(Kept())
ragged = ["photo.jpg", "small.png", "photo.jpg", "small.png", "photo.jpg"]
for name in ("masked-model", "image-model"):
    warnings.clear()
    pipe = pipeline("image-classification", model=name, trust_remote_code=True)
    answers[name + " alone"] = [scores(one) for one in pipe(ragged, top_k=7)]
    quiet = list(warnings)
    answers[name + " together"] = [scores(one) for one in pipe(ragged, top_k=7, batch_size=2)]
    pipe(ragged, top_k=7, batch_size=3)
    answers[name + " warnings"] = [quiet, [text for text in warnings if "mask_padding" in text]]

pipe = pipeline("image-classification", model="image-model", trust_remote_code=True)
answers["turned"] = scores(pipe("turned.jpg", top_k=7))
answers["image"] = scores(pipe(Image.open("photo.jpg"), top_k=7))
answers["image path"] = scores(pipe("photo.jpg", top_k=7))
answers["image bytes"] = scores(pipe(Path("photo.jpg").read_bytes()[:9000], top_k=7))
answers["image batch"] = scores(pipe(["photo.jpg", "photo.jpg"], top_k=7, batch_size=2)[1])
pipe.image_processor.file_encoding = None
answers["image path undecoded"] = scores(pipe("small.png", top_k=7))
json.loads(pipe.model.config.to_json_string())
pipe.model.save_pretrained("image-model-again")
pipe.image_processor.save_pretrained("image-model-again")
again = pipeline("image-classification", model="image-model-again", trust_remote_code=True)
answers["saved again"] = scores(again("small.png", top_k=7))

pipe = pipeline("audio-classification", model="audio-model", trust_remote_code=True)
answers["array"] = scores(pipe(speech, top_k=5))
answers["dictionary"] = scores(pipe({"array": speech, "sampling_rate": 16000}, top_k=5))
answers["wav path"] = scores(pipe("speech.wav", top_k=5))
answers["wav Path"] = scores(pipe(Path("speech.wav"), top_k=5))
answers["wav of 32 bits"] = scores(pipe("speech-32.wav", top_k=5))
answers["wav bytes"] = scores(pipe(Path("speech.wav").read_bytes(), top_k=5))
def refusal(what):
    try:
        pipe(what)
    except ValueError as error:
        return str(error)

answers["missing"] = refusal("no-such.wav")
answers["cut"] = refusal("cut.wav")
answers["prime rate"] = refusal("prime.wav")
pipe = pipeline("image-classification", model="image-model", trust_remote_code=True)
for name in ("no-such.png", "deep.png", "cut.png", "giant.png", "thin.png"):
    answers[name] = refusal(name)
pipe = pipeline("audio-classification", model="audio-model", trust_remote_code=True)
pipe.feature_extractor.file_encoding = "MP3"
answers["mp3 path"] = scores(pipe("word.mp3", top_k=5))
answers["files"] = sorted(path.name for path in Path("image-model-again").iterdir())
print(json.dumps(answers))
"""


def png_that_claims(png, width, height):
    """The file with other sizes in its header, whose checksum is right."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    torch.manual_seed(0)
    ByteFormerForImageClassification(ByteFormerConfig(num_labels=7, **SIZES)).save_pretrained(folder / "image-model")
    ByteFormerImageProcessor(size=64, crop_size=48, file_encoding="JPEG", quality=60).save_pretrained(
        folder / "image-model"
    )
    ByteFormerForAudioClassification(ByteFormerConfig(num_labels=5, **SIZES)).save_pretrained(folder / "audio-model")
    ByteFormerFeatureExtractor().save_pretrained(folder / "audio-model")
    photo = Image.fromarray(load_sample_images().images[0])
    photo.save(folder / "photo.jpg", quality=90)
    photo.resize((16, 16)).save(folder / "small.png")
    masked = ByteFormerForImageClassification(ByteFormerConfig(num_labels=7, mask_padding=True, **SIZES))
    masked.save_pretrained(folder / "masked-model")
    ByteFormerImageProcessor(size=64, crop_size=48, file_encoding="JPEG", quality=60).save_pretrained(
        folder / "masked-model"
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    photo.save(folder / "turned.jpg", quality=90, exif=exif)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(folder / "deep.png")
    (folder / "cut.png").write_bytes((folder / "small.png").read_bytes()[:80])
    (folder / "giant.png").write_bytes(png_that_claims((folder / "small.png").read_bytes(), 60000, 60000))
    Image.new("RGB", (1, 60000)).save(folder / "thin.png")
    samples = (np.sin(np.arange(RATE // 4) * 0.2) * 2**14).astype(np.int16)
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    content = (folder / "speech.wav").read_bytes()
    (folder / "cut.wav").write_bytes(content[:3000])
    (folder / "prime.wav").write_bytes(content[:24] + (9999991).to_bytes(4, "little") + content[28:])
    wide = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + 4 * len(samples),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        RATE,
        4 * RATE,
        4,
        32,
        b"data",
        4 * len(samples),
    )
    (folder / "speech-32.wav").write_bytes(wide + (samples.astype("<i4") * 65536).tobytes())
    np.save(folder / "speech.npy", (samples / 2.0**15).astype(np.float32))  # what any audio library reads from the file
    (folder / "word.mp3").write_bytes(b"ID3\x04" + bytes(range(256)) * 4)
    return folder


@pytest.fixture(scope="module")
def answers(folder, warm):
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("HF_")}
    environment = {**kept, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""}  # no ffmpeg to lean on
    done = subprocess.run([warm.command, "-c", USER], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@torch.no_grad()
def scores(model, inputs):
    probabilities = model.eval()(**inputs).logits.softmax(-1)[0]
    return {model.config.id2label[index]: probability for index, probability in enumerate(probabilities.tolist())}


def assert_same_scores(answer, expected, within=1e-6):
    assert answer.keys() == expected.keys()
    assert max(abs(answer[label] - expected[label]) for label in expected) < within


def test_the_process_cannot_see_the_repository(answers):
    assert answers["repository"] == []


def test_processors_through_the_auto_classes(folder, answers):
    ids = ByteFormerImageProcessor.from_pretrained(folder / "image-model")(
        Image.open(folder / "photo.jpg"), return_tensors="np"
    )["input_ids"]
    assert answers["ids"] == ids[0].tolist()
    wav = ByteFormerFeatureExtractor()(np.load(folder / "speech.npy"), return_tensors="np")["input_ids"]
    assert answers["wav"] == wav[0].tolist()


@pytest.mark.parametrize("kind", ["image", "image path", "image batch"])
def test_image_pipeline_runs_the_recipe_on_images_and_paths(folder, answers, kind):
    model = ByteFormerForImageClassification.from_pretrained(folder / "image-model")
    processor = ByteFormerImageProcessor.from_pretrained(folder / "image-model")
    assert_same_scores(answers[kind], scores(model, processor(Image.open(folder / "photo.jpg"), return_tensors="pt")))


@pytest.mark.parametrize(
    "kind, name, length",
    [
        ("image bytes", "photo.jpg", 9000),
        ("image path undecoded", "small.png", None),
        ("saved again", "small.png", None),
    ],
)
def test_image_pipeline_classifies_undecoded_bytes(folder, answers, kind, name, length):
    model = ByteFormerForImageClassification.from_pretrained(folder / "image-model")
    data = (folder / name).read_bytes()[:length]
    assert_same_scores(answers[kind], scores(model, ByteFormerImageProcessor()(data, return_tensors="pt")))


@pytest.mark.parametrize("kind", ["array", "dictionary", "wav path", "wav Path", "wav bytes", "wav of 32 bits"])
def test_audio_pipeline_runs_the_recipe_on_arrays_and_wav_files_without_ffmpeg(folder, answers, kind):
    model = ByteFormerForAudioClassification.from_pretrained(folder / "audio-model")
    inputs = ByteFormerFeatureExtractor()(np.load(folder / "speech.npy"), sampling_rate=RATE, return_tensors="pt")
    assert_same_scores(answers[kind], scores(model, inputs))


def test_audio_pipeline_classifies_mp3_files_as_they_are(folder, answers):
    model = ByteFormerForAudioClassification.from_pretrained(folder / "audio-model")
    assert_same_scores(
        answers["mp3 path"], scores(model, ByteFormerFeatureExtractor()(folder / "word.mp3", return_tensors="pt"))
    )


def test_image_pipeline_turns_a_photo_upright(folder, answers):
    model = ByteFormerForImageClassification.from_pretrained(folder / "image-model")
    processor = ByteFormerImageProcessor.from_pretrained(folder / "image-model")
    upright = Image.open(folder / "turned.jpg").transpose(Image.Transpose.ROTATE_270)
    assert_same_scores(answers["turned"], scores(model, processor(upright, return_tensors="pt")))


def test_one_warning_where_padding_moves_the_scores_and_none_where_it_is_masked(answers):
    for alone, together in zip(answers["masked-model alone"], answers["masked-model together"]):
        assert_same_scores(together, alone, within=1e-5)
    assert answers["masked-model warnings"] == [[], []]
    quiet, warnings = answers["image-model warnings"]
    assert quiet == [] and len(warnings) == 1
    assert "mask_padding=False" in warnings[0] and "batch size 1" in warnings[0]
    moved = [
        abs(together[label] - alone[label])
        for alone, together in zip(answers["image-model alone"], answers["image-model together"])
        for label in alone
    ]
    assert max(moved) > 1e-4  # what the warning is about


REFUSED = {
    "missing": "no such file: 'no-such.wav'",
    "cut": "damaged WAV file: it claims 8,036 bytes and has 3,000",
    "prime rate": "audio at 9999991 Hz cannot be resampled to 16000 Hz here",
    "no-such.png": "'no-such.png', which is neither a local file nor an address or base64 text of a picture, cannot be decoded",
    "deep.png": "has more than 8 bits a channel",
    "cut.png": "file 'cut.png' cannot be decoded",
    "giant.png": "file 'giant.png' cannot be decoded: Image size (3600000000 pixels) exceeds limit",
    "thin.png": "image of 1 x 60000, resized, has 64 x 3840000 pixels; accepted: at most",
}


@pytest.mark.parametrize("name", REFUSED)
def test_pipelines_refuse_by_name(answers, name):
    assert REFUSED[name] in answers[name]
    assert len(answers[name]) <= 500 and answers[name].isprintable()


def test_saving_from_a_loaded_folder_keeps_the_code(answers):
    assert {"image_processing_byteformer.py", "modeling_byteformer.py", "configuration_byteformer.py"} <= set(
        answers["files"]
    )
