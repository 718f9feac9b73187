"""What stands in the shards is what the folder's own processor and model give, computed by hand one input at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from byteformer import ByteFormerImageProcessor, ByteFormerModel
from embedding_kit import DIGITS, MOTION, embedded, failed_of, rows_of, save_clips, save_pictures
from llavavit import LlavaViTModel, LlavaViTVideoProcessor
from measure import assert_outputs_close
from PIL import Image
from transformers import CLIPImageProcessor, pipeline


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    save_pictures(folder / "photos", 20)
    save_clips(folder / "clips", 3)
    (folder / "photos" / "notes.txt").write_text("not for this model")
    return folder


def motion_by_hand(path):
    """Outputs of the model for one file, and its frames' times."""
    model = LlavaViTModel.from_pretrained(MOTION).eval()
    if path.endswith(".mp4"):
        inputs = LlavaViTVideoProcessor.from_pretrained(MOTION)(videos=path, return_tensors="pt")
        times = inputs.frame_times[0]
    else:
        inputs, times = CLIPImageProcessor.from_pretrained(MOTION)(Image.open(path), return_tensors="pt"), None
    with torch.no_grad():
        return model(**inputs), times


def test_vectors_of_pictures_and_clips(collection, tmp_path):
    result = embedded(MOTION, collection / "photos", collection / "clips", "--output", tmp_path / "out")
    assert result.code == 0 and "23 embedded in 1 shard" in result.out and "1 of .txt" in result.out, result
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 23 and failed_of(tmp_path / "out") == {}
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows[:20]) + [row["path"] for row in rows[20:]]
    for row in rows[::4] + rows[-3:]:
        outputs, times = motion_by_hand(row["path"])
        assert_outputs_close(torch.tensor(row["vector"]), outputs.pooler_output[0])
        assert row["frame_times"] == times and row["shard"] is None
        assert row["size"] == (collection / row["path"]).stat().st_size
        assert int(row["mtime"].timestamp()) == int((collection / row["path"]).stat().st_mtime)
    schema = pq.read_schema(tmp_path / "out" / "data" / "000000.parquet")
    assert schema.field("vector").type == pa.list_(pa.float32(), 64)
    assert len({row["model_revision"] for row in rows}) == 1 and rows[0]["model_revision"].startswith("sha256:")


def test_tokens_are_one_array_an_input_with_their_places(collection, tmp_path):
    output = tmp_path / "out"
    assert embedded(MOTION, collection / "photos", collection / "clips", "--output", output, "--what", "tokens").code == 0
    for row in rows_of(output)[::9] + rows_of(output)[-1:]:
        outputs, _ = motion_by_hand(row["path"])
        assert_outputs_close(torch.tensor(row["tokens"]), outputs.last_hidden_state[0])
        assert len(row["patch_positions"]) == len(row["tokens"])


def test_labels_are_the_pipelines(collection, tmp_path):
    output = tmp_path / "out"
    assert embedded(MOTION, collection / "clips", "--output", output, "--what", "labels", "--top", 3).code == 0
    classify = pipeline("video-classification", model=str(MOTION), trust_remote_code=True)
    for row in rows_of(output):
        expected = classify(row["path"])[:3]
        assert row["labels"] == [answer["label"] for answer in expected]
        assert np.allclose(row["scores"], [answer["score"] for answer in expected], rtol=1e-4, atol=1e-6)


def test_bytes_through_the_recipe_and_as_they_are(tmp_path):
    paths = save_pictures(tmp_path / "photos", 12)
    assert embedded(DIGITS, tmp_path / "photos", "--output", tmp_path / "recipe").code == 0
    model, processor = ByteFormerModel.from_pretrained(DIGITS).eval(), ByteFormerImageProcessor.from_pretrained(DIGITS)
    for row in rows_of(tmp_path / "recipe")[::5]:
        with torch.no_grad():
            expected = model(**processor(Image.open(row["path"]), return_tensors="pt")).pooler_output[0]
        assert_outputs_close(torch.tensor(row["vector"]), expected)
    for number, path in enumerate(paths):
        path.with_suffix(".anything").write_bytes(bytes(range(number + 1, number + 200)))
        path.unlink()
    assert embedded(DIGITS, tmp_path / "photos", "--output", tmp_path / "bytes", "--read-files-as", "bytes").code == 0
    rows = rows_of(tmp_path / "bytes")
    assert len(rows) == 12
    for row in rows[::5]:
        with torch.no_grad():
            expected = model(**processor(row["path"], return_tensors="pt")).pooler_output[0]
        assert_outputs_close(torch.tensor(row["vector"]), expected)


def test_budget_of_a_batch_and_dtype_move_a_vector_by_rounding_alone(collection, tmp_path):
    runs = {"16384": [], "40": ["--batch-patches", 40], "bfloat16": ["--dtype", "bfloat16"]}
    found = {}
    for name, options in runs.items():
        assert embedded(MOTION, collection / "photos", "--output", tmp_path / name, *options).code == 0
        found[name] = torch.tensor([row["vector"] for row in rows_of(tmp_path / name)])
    assert_outputs_close(found["40"], found["16384"])
    assert torch.nn.functional.cosine_similarity(found["bfloat16"], found["16384"]).min() > 0.98
    assert not torch.equal(found["bfloat16"], found["16384"])


def test_native_resolution_sees_every_picture_at_its_own_size(collection, tmp_path):
    output = tmp_path / "out"
    arguments = (collection / "photos", "--output", output, "--native-resolution", "--what", "tokens")
    assert embedded(MOTION, *arguments).code == 0
    for row in rows_of(output):
        with Image.open(row["path"]) as image:
            rows, columns = max(1, round(image.height / 8)), max(1, round(image.width / 8))
        found = np.asarray(row["patch_positions"]).max(axis=0) + 1
        assert abs(int(found[1]) - rows) <= 1 and abs(int(found[2]) - columns) <= 1
        assert len(row["tokens"]) == found[1] * found[2]
