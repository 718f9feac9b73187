"""verify.py's forward and alignment checks, on models with a known fault: each fault is found, and a right model passes."""

import dataclasses
import types

import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.verification.probes.forwards import forwards_of
from hubtools.verification.probes.protocol import CheckFailed, CheckSkipped
from hubtools.verification.probes.reference import ReferenceProbe
from hubtools.verification.weight_files import read_tensors
from plain_byteformer import PlainByteFormer
from plain_llava_vit import PlainLlavaViT
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, random_state, write_recipe
from transformers.modeling_outputs import BaseModelOutputWithPooling

IMAGE_CLASSIFIER = LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForImageClassification").replace(
    "patch_size = 8", "patch_size = 8\nnum_labels = 5"
)
MASKED = BYTEFORMER_TOML.replace("num_labels = 10", "num_labels = 10\nmask_padding = true")


def build(tmp_path, toml):
    """A model with random weights, none of them constant, and its recipe."""
    recipe = load_recipe(str(write_recipe(tmp_path, toml)))
    model = recipe.build_model()
    model.load_state_dict(random_state(recipe))
    return recipe, model.eval()


def checks(tmp_path, toml):
    """The forward checks of a model with random weights."""
    recipe, model = build(tmp_path, toml)
    return forwards_of(recipe.package.forwards, model)


@pytest.fixture
def llava_vit(tmp_path):
    return checks(tmp_path, IMAGE_CLASSIFIER)


@pytest.fixture
def byteformer(tmp_path):
    return checks(tmp_path, BYTEFORMER_TOML)


def spoil(forwards, change):
    """Lets the backbone's outputs pass through `change(outputs, inputs)`."""
    original = forwards.backbone.forward

    def forward(self, *args, **inputs):
        outputs = original(*args, **inputs)
        inputs.update(
            zip(
                ("pixel_values" if "pixel_values" in inputs or hasattr(self.config, "patch_size") else "input_ids",),
                args,
            )
        )
        return change(outputs, inputs) or outputs

    forwards.backbone.forward = types.MethodType(forward, forwards.backbone)


# --- forward checks


@pytest.mark.parametrize("subject", ["image", "video", "sparse", "batch", "attention"])
def test_llava_vit_passes(llava_vit, subject):
    assert llava_vit.check(subject)


@pytest.mark.parametrize("subject", ["bytes", "padded batch", "attention"])
@pytest.mark.parametrize("toml", [BYTEFORMER_TOML, MASKED])
def test_byteformer_passes(tmp_path, toml, subject):
    assert checks(tmp_path, toml).check(subject)


def not_finite(outputs, inputs):
    outputs.pooler_output[0, 3] = float("nan")


def constant(outputs, inputs):
    for name in ("last_hidden_state", "pooler_output"):
        outputs[name] = torch.zeros_like(outputs[name])


def leaking(outputs, inputs):
    outputs.last_hidden_state = outputs.last_hidden_state + 1e-3 * outputs.last_hidden_state.mean(0)


def sorting(outputs, inputs):
    """What a model does that takes visible indices for a set."""
    if inputs.get("visible_indices") is not None and inputs["visible_indices"].dim() == 2:
        order = inputs["visible_indices"].argsort(1)
        outputs.last_hidden_state = outputs.last_hidden_state.gather(
            1, order[:, :, None].expand_as(outputs.last_hidden_state)
        )


def few_states(outputs, inputs):
    if outputs.hidden_states is not None:
        outputs.hidden_states = outputs.hidden_states[1:]


def writing(outputs, inputs):
    inputs["pixel_values"].mul_(2)


def frames_ignored(outputs, inputs):
    if inputs["pixel_values"].dim() == 5:
        outputs.last_hidden_state = outputs.last_hidden_state[:, :6]


@pytest.mark.parametrize(
    "fault, subject, expected",
    [
        (not_finite, "image", "NaN or infinity: .*pooler_output"),
        (constant, "batch", "different inputs give the same output"),
        (leaking, "batch", "in a batch and alone: last_hidden_state differs by"),
        (sorting, "sparse", "backwards: last_hidden_state differs by"),
        (few_states, "image", "number of hidden states: 2, expected 3"),
        (writing, "image", "changed by the model: pixel_values"),
        (frames_ignored, "video", r"shape of last_hidden_state: \(1, 6, 64\), expected \(1, 18, 64\)"),
    ],
)
def test_llava_vit_faults_are_found(llava_vit, fault, subject, expected):
    spoil(llava_vit, fault)
    with pytest.raises(CheckFailed, match=expected):
        llava_vit.check(subject)


def test_backends_that_disagree_are_found(llava_vit):
    def causal(outputs, inputs):
        if llava_vit.config._attn_implementation == "sdpa":
            outputs.last_hidden_state = outputs.last_hidden_state * 1.001

    spoil(llava_vit, causal)
    with pytest.raises(CheckFailed, match="eager and sdpa on video: last_hidden_state differs by .* 0.001 of"):
        llava_vit.check("attention")


def ids_changed(outputs, inputs):
    inputs["input_ids"][0, 0] = 7


def minus_one_is_a_byte(outputs, inputs):
    if (inputs["input_ids"] == -1).any():
        outputs.pooler_output = outputs.pooler_output + 1


@pytest.mark.parametrize(
    "fault, subject, expected",
    [
        (not_finite, "bytes", "NaN or infinity: .*pooler_output"),
        (ids_changed, "bytes", "changed by the model: input_ids"),
        (minus_one_is_a_byte, "padded batch", "padding as -1 and as 256"),
        (leaking, "padded batch", "row 0 in a batch and alone"),
    ],
)
def test_byteformer_faults_are_found(byteformer, fault, subject, expected):
    spoil(byteformer, fault)
    with pytest.raises(CheckFailed, match=expected):
        byteformer.check(subject)


def test_padding_that_counts_is_found_where_it_must_not(tmp_path):
    forwards = checks(tmp_path, MASKED)

    def counted(outputs, inputs):
        padding = ((inputs["input_ids"] == 256) | (inputs["input_ids"] == -1)).float().mean(1, keepdim=True)
        outputs.pooler_output = outputs.pooler_output + padding

    spoil(forwards, counted)
    with pytest.raises(CheckFailed, match="the padded row in a batch and alone"):
        forwards.check("padded batch")


# --- alignment with a reference


class Silent:
    """A reporter that no one listens to."""

    def using(self, what):
        pass


def alignment(tmp_path, toml, make, changed=(), checkpoint=None) -> ReferenceProbe:
    """The alignment checks of a folder built from `toml`, against the module that `make(config)` gives."""
    recipe, model = build(tmp_path, toml)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    build_folder(tmp_path / "folder", recipe, tmp_path / "weights.pth")
    forwards = forwards_of(recipe.package.forwards, model)
    for subject in ("image", "video", "sparse") if recipe.package.name == "llavavit" else ("bytes", "padded batch"):
        forwards.check(subject)
    torch.save(forwards.recorded, tmp_path / "exchange.pt")
    config = model.config.to_dict()
    job = {
        "package": recipe.package.name,
        "folder": str(tmp_path / "folder"),
        "tensors": [dataclasses.asdict(tensor) for tensor in read_tensors(tmp_path / "folder").values()],
        "exchange": str(tmp_path / "exchange.pt"),
        "config": {**config, "num_labels": model.config.num_labels},
        "own_keys": [key for key in config if key.startswith(("num_", "hidden", "rope", "layer_norm"))],
        "changed": list(changed),
        "checkpoint": checkpoint,
        "reference": (str(tmp_path / "reference.py"), "make"),
    }
    (tmp_path / "reference.py").write_text("import reference_of_the_test\nmake = reference_of_the_test.make\n")
    module = types.ModuleType("reference_of_the_test")
    module.make = make
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "reference_of_the_test", module)
        probe = ReferenceProbe(job, Silent())
        probe.first = outcome(probe.configuration)
    return probe


def outcome(check) -> str:
    try:
        return "PASS " + check()
    except CheckFailed as failure:
        return f"FAIL {failure}"
    except CheckSkipped as reason:
        return f"SKIP {reason}"


def interleaved(config):
    """The reference with its angles as [a0 a0 a1 a1 ...] where the released models have [a0 a1 ... a0 a1 ...]."""
    model = PlainLlavaViT(config)
    for block in model.encoder.layers:
        angles = block.self_attn.angles
        block.self_attn.angles = lambda positions, angles=angles: (
            angles(positions).chunk(2, dim=-1)[0].repeat_interleave(2, dim=-1)
        )
    return model


class Training(torch.nn.Module):
    """The plain implementation behind the keys of the training layout."""

    def __init__(self, config):
        super().__init__()
        plain = PlainLlavaViT(config)
        self.conv1, self.ln_pre, self.ln_post, self.head = (
            plain.embeddings.patch_embedding,
            plain.layernorm_pre,
            plain.layernorm_post,
            plain.head,
        )
        self.transformer = torch.nn.Module()
        self.transformer.layers = torch.nn.ModuleList()
        for block in plain.encoder.layers:
            layer = torch.nn.Module()
            layer.ln_1, layer.ln_2, layer.mlp = (
                block.layer_norm1,
                block.layer_norm2,
                torch.nn.Sequential(block.mlp.fc1, torch.nn.GELU(), block.mlp.fc2),
            )
            layer.attn = torch.nn.Module()
            layer.attn.in_proj, layer.attn.out_proj = (
                torch.nn.Linear(config["hidden_size"], 3 * config["hidden_size"]),
                block.self_attn.out_proj,
            )
            self.transformer.layers.append(layer)
        self.__dict__["plain"] = plain  # not a submodule: its keys are those of another layout
        self.transformer.register_buffer("rotary_emb", torch.zeros(2), persistent=False)

    def forward(self, x, indices=None):
        for block, layer in zip(self.plain.encoder.layers, self.transformer.layers):
            for name, weight, bias in zip("qkv", layer.attn.in_proj.weight.chunk(3), layer.attn.in_proj.bias.chunk(3)):
                getattr(block.self_attn, f"{name}_proj").weight = torch.nn.Parameter(weight)
                getattr(block.self_attn, f"{name}_proj").bias = torch.nn.Parameter(bias)
        return self.plain(x, indices)["last_hidden_state"]


def returning(convert):
    class Reference(PlainLlavaViT):
        def forward(self, pixel_values, visible_indices=None):
            return convert(super().forward(pixel_values, visible_indices))

    return Reference


@pytest.mark.parametrize(
    "make",
    [
        PlainLlavaViT,
        Training,
        returning(lambda outputs: outputs["last_hidden_state"]),
        returning(lambda outputs: outputs["pooler_output"]),
        returning(lambda outputs: (outputs["last_hidden_state"], outputs["pooler_output"])),
        returning(lambda outputs: BaseModelOutputWithPooling(**outputs)),
    ],
    ids=["dictionary", "training layout, tensor, inputs in order", "tensor", "pooled tensor", "tuple", "ModelOutput"],
)
@pytest.mark.parametrize("toml", [LLAVA_VIT_TOML, IMAGE_CLASSIFIER], ids=["base", "head"])
def test_llava_vit_references_that_agree(tmp_path, toml, make):
    probe = alignment(tmp_path, toml, make)
    assert probe.first.startswith("PASS") and "hidden_size = 64" in probe.first
    assert outcome(probe.structure).startswith("PASS 47 tensors")
    forward = outcome(probe.forward)
    assert forward.startswith("PASS largest difference") and "on image, video, sparse" in forward


@pytest.mark.parametrize("toml", [BYTEFORMER_TOML, MASKED], ids=["released", "masked"])
def test_byteformer_reference_that_agrees(tmp_path, toml):
    probe = alignment(tmp_path, toml, PlainByteFormer)
    assert probe.first.startswith("PASS") and "downsample = [True, False, True, False]" in probe.first
    assert outcome(probe.structure).startswith("PASS 61 tensors")
    forward = outcome(probe.forward)
    assert forward.startswith("PASS largest difference") and "padded batch: logits" in forward


def test_interleaved_angles_are_found_and_measured(tmp_path):
    probe = alignment(tmp_path, LLAVA_VIT_TOML, interleaved)
    assert outcome(probe.structure).startswith("PASS")
    forward = outcome(probe.forward)
    assert forward.startswith("FAIL") and "of its largest magnitude" in forward and "(allowed: 1e-05)" in forward
    assert "image: hidden_states.0 differs by" in forward  # named layer by layer


class Nudged(PlainLlavaViT):
    """A weight is off by 1e-2 after loading."""

    def load_state_dict(self, state_dict, strict=True):
        result = super().load_state_dict(state_dict, strict=strict)
        with torch.no_grad():
            self.encoder.layers[1].mlp.fc2.weight[3, 5] += 1e-2
        return result


class NudgedInForward(PlainLlavaViT):
    """A weight is off by 1e-2 only while it computes."""

    def forward(self, *args, **kwargs):
        return torch.func.functional_call(
            self.plain,
            {"encoder.layers.1.mlp.fc2.weight": self.plain.encoder.layers[1].mlp.fc2.weight + self.nudge},
            args,
            kwargs,
        )

    def __init__(self, config):
        super().__init__(config)
        self.__dict__["plain"] = PlainLlavaViT(config)
        self.__dict__["nudge"] = torch.zeros(config["hidden_size"], config["intermediate_size"])
        self.nudge[3, 5] = 1e-2

    def load_state_dict(self, state_dict, strict=True):
        self.plain.load_state_dict(state_dict)
        self.plain.eval()
        return super().load_state_dict(state_dict, strict=strict)


def test_a_weight_that_the_reference_changes_is_found_and_named(tmp_path):
    probe = alignment(tmp_path, LLAVA_VIT_TOML, Nudged)
    outcome(probe.structure)
    forward = outcome(probe.forward)
    assert (
        forward.startswith("FAIL 1 of 47 tensors")
        and "encoder.layers.1.mlp.fc2.weight differs by up to 0.01" in forward
    )
    assert "last_hidden_state differs by" in forward


def test_a_weight_that_is_off_while_computing_is_found(tmp_path):
    probe = alignment(tmp_path, LLAVA_VIT_TOML, NudgedInForward)
    outcome(probe.structure)
    forward = outcome(probe.forward)
    assert (
        forward.startswith("FAIL") and "differs by" in forward.split("\n")[0] and "hidden_states.2 differs" in forward
    )


def test_where_folder_and_checkpoint_differ_the_reference_gets_the_checkpoints_weights(tmp_path):
    name = "encoder.layers.0.mlp.fc1.weight"
    (tmp_path / "other").mkdir()
    recipe, model = build(tmp_path / "other", LLAVA_VIT_TOML)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state[name][0, 0] += 1e-2
    torch.save(state, tmp_path / "original.pth")
    probe = alignment(
        tmp_path, LLAVA_VIT_TOML, PlainLlavaViT, changed=[name], checkpoint=str(tmp_path / "original.pth")
    )
    outcome(probe.structure)
    assert outcome(probe.forward).startswith("FAIL")
    assert torch.equal(probe.reference.state_dict()[name], state[name])


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3 in the reference, 2 in config.json"),
        ({"num_attention_heads": 1}, "num_attention_heads is 1 in the reference, 2 in config.json"),
        ({"intermediate_size": 96}, "intermediate_size is 96 in the reference, 128 in config.json"),
        ({"use_head": False}, "use_head is False in the reference, True in config.json"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm' in the reference"),
        ({"rope_theta": 1e5}, "rope_theta is 100000.0 in the reference"),
    ],
)
def test_other_configurations_are_found(tmp_path, changes, expected):
    probe = alignment(tmp_path, LLAVA_VIT_TOML, lambda config: PlainLlavaViT({**config, **changes}))
    assert probe.first.startswith("FAIL") and expected in probe.first
    structure = outcome(probe.structure)
    visible_in_shapes = set(changes) & {"num_hidden_layers", "intermediate_size", "use_head", "layer_norm_type"}
    assert structure.startswith("FAIL" if visible_in_shapes else "PASS")
    if visible_in_shapes:
        assert outcome(probe.forward).startswith("SKIP not run")


def test_a_reference_of_another_kind(tmp_path):
    probe = alignment(tmp_path, LLAVA_VIT_TOML, lambda config: torch.nn.Linear(2, 2))
    assert probe.first.startswith("FAIL") and "no layout of llavavit fits" in probe.first
    assert outcome(probe.structure).startswith("SKIP")


def test_a_reference_that_is_no_module(tmp_path):
    with pytest.raises(UserError, match="gives a dict; a torch.nn.Module is needed"):
        alignment(tmp_path, LLAVA_VIT_TOML, dict)


def test_outputs_that_fit_nothing(tmp_path):
    probe = alignment(tmp_path, LLAVA_VIT_TOML, returning(lambda outputs: outputs["last_hidden_state"][0]))
    outcome(probe.structure)
    assert r"a tensor of shape (6, 64), in which none of last_hidden_state (1, 6, 64)" in outcome(probe.forward)
