"""Outputs equal the recorded tensors of the public implementations on every attention backend."""

import sys

import pytest
import torch
import transformers
from kit import ORIGINS, PAIR, RECORDED, TOLERANCE, error, folder, load, main_output, run
from processes import Printed, printed_by_a_process

BACKENDS = ("default", "eager", "sdpa")
BOTH_MODELS = pytest.mark.parametrize("source", PAIR, ids=lambda f: f.name)


def backend_argument(backend):
    return {} if backend == "default" else {"attn_implementation": backend}


@pytest.mark.parametrize("source", RECORDED, ids=lambda f: f.name)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("origin", ORIGINS)
def test_recorded_outputs(source, backend, origin):
    if source.has_classifier:
        models = [load(source, origin, **backend_argument(backend))]
        models.append(getattr(models[0], source.prefix))
    else:
        models = [load(source, origin, **backend_argument(backend))]
    for case, (inputs, expected) in source.cases.items():
        wanted = {name.split(".")[0] for name in expected}
        flags = {
            "output_hidden_states": bool(wanted & {"hidden_states", "embeddings"}),
            "output_attentions": "attentions" in wanted,
        }
        outputs = [run(model, inputs, **flags) for model in models]
        for name, tensor in expected.items():
            actual = _find(outputs, name)
            assert error(actual, tensor) <= TOLERANCE, f"{case}: {name}"


def _find(outputs, name):
    """`hidden_states.2` is entry 2 of the tuple; `embeddings` is what enters the first layer."""
    name = {"embeddings": "hidden_states.0", "merged": "merged_states"}.get(name, name)
    name, _, index = name.partition(".")
    value = next(value for value in (getattr(output, name, None) for output in outputs) if value is not None)
    return value[int(index)] if index else value


@BOTH_MODELS
def test_default_backend_is_sdpa(source):
    assert load(source).config._attn_implementation == "sdpa"


@BOTH_MODELS
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_requested_backend_is_used(source, backend):
    model = load(source, attn_implementation=backend)
    assert model.config._attn_implementation == backend


def ask_for_flash_attention():
    for source in PAIR:
        expected = main_output(run(load(source, attn_implementation="sdpa"), source.inputs))
        for origin in ORIGINS:
            print("MARK", source.name, origin, file=sys.stderr, flush=True)
            model = load(source, origin, attn_implementation="flash_attention_2")
            outputs = [main_output(run(model, source.inputs)) for _ in range(3)]
            equal = all(error(output, expected) <= TOLERANCE for output in outputs)
            print(source.name, origin, model.config._attn_implementation, equal)
            print("MARK end", file=sys.stderr, flush=True)


@pytest.fixture(scope="module")
def flash_requested():
    """What a process of its own printed: a warning that is given once per process must not be used up here."""
    return printed_by_a_process("from test_outputs import ask_for_flash_attention; ask_for_flash_attention()")


@BOTH_MODELS
@pytest.mark.parametrize("origin", ORIGINS)
def test_flash_attention_falls_back_to_sdpa_with_one_warning(source, origin, flash_requested: Printed):
    assert f"{source.name} {origin} sdpa True" in flash_requested.out.splitlines()
    section = flash_requested.err.partition(f"MARK {source.name} {origin}")[2].partition("MARK end")[0]
    warnings = [line for line in section.splitlines() if "flash" in line.lower()]
    assert len(warnings) == 1, section


@BOTH_MODELS
def test_release_accepts_flash_attention(source, not_applicable):
    """The release's own check of the class's flags, which comes before it looks for flash-attn: a refusal here would
    be an error for everyone who has flash-attn."""
    model, base = load(source), transformers.PreTrainedModel
    if hasattr(base, "_flash_attn_can_dispatch"):
        check = lambda: base._flash_attn_can_dispatch(model, 2)  # noqa: E731
    elif hasattr(base, "_flash_attn_2_can_dispatch"):
        check = lambda: base._flash_attn_2_can_dispatch(model)  # noqa: E731
    else:
        check = lambda: base._check_and_enable_flash_attn_2.__func__(type(model), model.config)  # noqa: E731
    with pytest.raises(ImportError):  # flash-attn is not installed here; a ValueError would say "does not support"
        check()


@BOTH_MODELS
def test_registered_attention_function_is_called(source, not_applicable):
    """Whatever the release offers through its attention interface serves this model too."""
    try:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    except ImportError:
        not_applicable("no attention interface in this release (from 4.48)")
    if not hasattr(ALL_ATTENTION_FUNCTIONS, "register"):
        not_applicable("no registration of attention functions in this release (from 4.51)")
    calls = []

    def counted(module, query, key, value, attention_mask, **kwargs):
        calls.append(tuple(query.shape))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("counted", counted)
    model = load(source, attn_implementation="counted")
    output = main_output(run(model, source.inputs))
    assert len(calls) >= model.config.num_hidden_layers
    assert error(output, main_output(run(load(source), source.inputs))) <= TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_byteformer_rows_do_not_depend_on_neighbours(backend):
    model = load(folder("byteformer_masked"), **backend_argument(backend))
    lengths = (200, 120, 33, 5, 1)
    input_ids = torch.randint(0, 256, (len(lengths), 200), generator=torch.Generator().manual_seed(5))
    for row, length in enumerate(lengths):
        input_ids[row, length:] = -1
    together = run(model, {"input_ids": input_ids}).logits
    for row, length in enumerate(lengths):
        assert (
            error(together[row : row + 1], run(model, {"input_ids": input_ids[row : row + 1, : max(length, 4)]}).logits)
            <= TOLERANCE
        )
