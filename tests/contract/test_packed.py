"""Packs: images and videos of many sizes in one forward, the vision towers' merger, and images at native resolution."""

import numpy as np
import pytest
import torch
import transformers
from kit import ORIGINS, TOLERANCE, auto_image_processor, error, folder, load, package_class, run
from measure import assert_gradients_close
from PIL import Image
from test_pipelines import assert_scores

NATIVE = "llava_vit_native"


def samples(patch, frames=3):
    """Two images, a video and the same video again, of sizes in whole blocks of 2 x 2 patches."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4), (frames, 2, 2), (6, 2), (frames, 2, 4)]
    return [torch.randn(3, *shape[:-2], shape[-2] * patch, shape[-1] * patch, generator=generator) for shape in shapes]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_each_sample_of_a_pack_equals_itself_alone(origin, backend):
    for name in ("llava_vit_base", "tower_windows"):
        model = load(folder(name), origin, attn_implementation=backend)
        given = samples(model.config.patch_size, frames=6)
        packed = model.pack(given)
        outputs = run(model, packed)
        for number, (sample, tokens) in enumerate(zip(given, model.unpack(outputs.last_hidden_state, packed))):
            alone = run(model, model.pack([sample]))
            assert error(tokens, alone.last_hidden_state) <= TOLERANCE
            if model.config.use_head:
                assert error(outputs.pooler_output[number], alone.pooler_output[0]) <= TOLERANCE
            else:
                merged = model.unpack(outputs.merged_states, packed)[number]
                assert error(merged, alone.merged_states) <= TOLERANCE


def test_selections_and_whole_samples_in_one_pack():
    model = load(folder("llava_vit_base"))
    image, video = samples(model.config.patch_size)[:2]
    chosen = torch.tensor([11, 0, 7, 3])
    packed = model.pack([image, video], [None, chosen])
    whole, selected = model.unpack(run(model, packed).last_hidden_state, packed)
    assert packed["cu_seqlens"].tolist() == [0, len(whole), len(whole) + 4]
    assert error(whole, run(model, {"pixel_values": image[None]}).last_hidden_state[0]) <= TOLERANCE
    alone = run(model, {"pixel_values": video[None], "visible_indices": chosen[None]})
    assert error(selected, alone.last_hidden_state[0]) <= TOLERANCE


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_pack_are_those_of_its_samples(checkpointing):
    model = load(folder("llava_vit_image")).train()
    given, labels = samples(model.config.patch_size), torch.tensor([3, 0, 4, 1])
    losses = [model(**model.pack([sample]), labels=label[None]).loss for sample, label in zip(given, labels)]
    (sum(losses) / 4).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    if checkpointing:
        model.gradient_checkpointing_enable()
    loss = model(**model.pack(given), labels=labels).loss
    assert error(loss, sum(losses) / 4) <= TOLERANCE
    loss.backward()
    assert_gradients_close({name: parameter.grad for name, parameter in model.named_parameters()}, expected)


def test_a_tower_without_its_merger():
    source = folder("tower_windows")
    inputs, expected = source.cases["mixed"]
    outputs = run(load(source, out_hidden_size=None), inputs)
    assert outputs.merged_states is None
    assert error(outputs.last_hidden_state, expected["last_hidden_state"]) <= TOLERANCE


def pictures():
    ramp = np.arange(90 * 30 * 3, dtype=np.int64) ** 2 % 251
    tall = Image.fromarray(ramp.astype(np.uint8).reshape(90, 30, 3))
    return [tall, tall.rotate(90, expand=True), tall.crop((0, 0, 9, 5))]


def native_processor(auto_class, not_applicable):
    path = str(folder(NATIVE).path)
    if auto_class == "package":
        return package_class("llavavit", "LlavaViTImageProcessor").from_pretrained(path)
    found = auto_image_processor(not_applicable) if auto_class == "AutoImageProcessor" else transformers.AutoProcessor
    return found.from_pretrained(path, trust_remote_code=True)


@pytest.mark.parametrize("auto_class", ["AutoProcessor", "AutoImageProcessor", "package"])
def test_native_resolution_through_the_processor_and_the_pipeline(auto_class, not_applicable, tmp_path):
    source, given = folder(NATIVE), pictures()
    inputs = native_processor(auto_class, not_applicable)(images=given, return_tensors="pt")
    rows_and_columns = inputs["grid_thw"][:, 1:].prod(dim=1)
    assert rows_and_columns.sum() == len(inputs["pixel_values"]) and rows_and_columns.max() <= 20
    model = load(source)
    logits = run(model, dict(inputs)).logits
    pipe = transformers.pipeline("image-classification", model=str(source.path), trust_remote_code=True)
    given[1].save(tmp_path / "wide.png")
    answers = [pipe(given[0]), pipe(str(tmp_path / "wide.png")), pipe(given[2])]
    for answer, row in zip(answers, logits):
        assert_scores(answer, row[None])
    for together, answer in zip(pipe(given, batch_size=3), answers):
        assert [entry["label"] for entry in together] == [entry["label"] for entry in answer]
        assert all(abs(a["score"] - b["score"]) < 1e-5 for a, b in zip(together, answer))


def test_native_resolution_is_kept_when_saved(not_applicable, tmp_path):
    source = folder(NATIVE)
    load(source).save_pretrained(tmp_path)
    native_processor("AutoProcessor", not_applicable).save_pretrained(tmp_path)
    for name in ("preprocessor_config.json", "image_processing_llava_vit.py"):
        assert (tmp_path / name).read_bytes() == (source.path / name).read_bytes(), name
    pipes = [
        transformers.pipeline("image-classification", model=str(path), trust_remote_code=True)
        for path in (source.path, tmp_path)
    ]
    assert type(pipes[1].image_processor).__name__ == "LlavaViTImageProcessor"
    for picture in pictures():
        assert_scores(
            pipes[1](picture), run(load(source), dict(pipes[0].image_processor(picture, return_tensors="pt"))).logits
        )


def test_another_image_processor_is_refused():
    source = folder(NATIVE)
    with pytest.raises(ValueError, match="trained on images at native resolution"):
        transformers.pipeline(
            "image-classification",
            model=str(source.path),
            image_processor=transformers.CLIPImageProcessor(),
            trust_remote_code=True,
        )
