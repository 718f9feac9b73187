# SPDX-License-Identifier: Apache-2.0
"""With mask_padding, a row of a batch gives what it gives alone."""

import random

import torch
from byteformer_helpers import PADDING, byte_batch, plain_twin, random_config, randomised, tiny_model
from measure import OUTPUTS, assert_gradients_close, relative_error

from byteformer import ByteFormerForImageClassification


def ragged(seed: int):
    """A model of a random configuration, a batch of random lengths from 1 byte up, and the lengths."""
    pick = random.Random(seed)
    model = randomised(ByteFormerForImageClassification(random_config(seed, mask_padding=True)).eval(), seed)
    lengths = [pick.randint(1, pick.choice([4, 30, 180])) for _ in range(pick.randint(2, 5))]
    return model, byte_batch(lengths, max(lengths) + pick.choice([0, 0, 9]), seed), lengths


def test_rows_equal_their_single_runs():
    for seed in range(60):
        model, input_ids, lengths = ragged(seed)
        with torch.set_grad_enabled(seed % 4 == 0):
            batch = model(input_ids, output_hidden_states=True)
            assert relative_error(model(input_ids).logits, batch.logits) <= OUTPUTS, seed
            for row, length in enumerate(lengths):
                alone = model(input_ids[row : row + 1, :length], output_hidden_states=True)
                assert relative_error(batch.logits[row], alone.logits[0]) <= OUTPUTS, (seed, row)
                for together, single in zip(batch.hidden_states, alone.hidden_states):
                    tokens = single.shape[1]
                    assert relative_error(together[row, :tokens], single[0]) <= OUTPUTS, (seed, row)
                    assert not together[row, tokens:].any(), "nothing but zeros beyond the row's own tokens"


@torch.no_grad()
def test_rows_equal_the_plain_implementation():
    for seed in range(40):
        model, input_ids, _ = ragged(seed)
        outputs, expected = model(input_ids, output_attentions=seed % 2 == 0), plain_twin(model)(input_ids)
        assert relative_error(outputs.logits, expected["logits"]) <= OUTPUTS, seed


@torch.no_grad()
def test_released_mode_does_depend_on_padding():
    """The counterpart: the released computation counts padding, so masking has something to do."""
    input_ids = byte_batch([90, 30])
    model = tiny_model()
    assert relative_error(model(input_ids).logits[1], model(input_ids[1:, :30]).logits[0]) > 1e-3


@torch.no_grad()
def test_the_ends_of_the_sequence_do_not_see_each_other():
    """A byte at the end changes no token at the beginning, which the released wrap-around lets it do."""
    changed = {}
    for masked in (False, True):
        model = tiny_model(mask_padding=masked, num_hidden_layers=1, window_shifts=[8], downsample=[False])
        input_ids = byte_batch([66])
        other = input_ids.clone()
        other[0, -1] = (other[0, -1] + 1) % 256
        before, after = model.byteformer(input_ids).last_hidden_state, model.byteformer(other).last_hidden_state
        changed[masked] = relative_error(after[0, :8], before[0, :8]) > OUTPUTS
    assert changed == {False: True, True: False}


@torch.no_grad()
def test_mask_and_padding_ids_say_the_same():
    model = tiny_model(mask_padding=True)
    lengths = [100, 3, 41]
    input_ids = byte_batch(lengths)
    expected = model(input_ids).logits
    mask = (input_ids != PADDING).long()
    hidden = input_ids.where(mask.bool(), torch.full_like(input_ids, 7))
    for ids, attention_mask in (
        (input_ids, mask),
        (hidden, mask),
        (hidden, mask.bool()),
        (input_ids.where(mask.bool(), torch.tensor(-1)), None),
    ):
        assert relative_error(model(ids, attention_mask=attention_mask).logits, expected) <= OUTPUTS


@torch.no_grad()
def test_padding_anywhere_hides_the_tokens_it_touches():
    """Padding in the middle or in front leaves the others in place: as if attention never saw those tokens."""
    model = tiny_model(mask_padding=True)
    input_ids = byte_batch([120, 120], 130)
    input_ids[0, 50:60] = PADDING
    input_ids[1, :25] = PADDING
    together = model(input_ids).logits
    for row in (0, 1):
        assert relative_error(together[row], model(input_ids[row : row + 1, :120]).logits[0]) <= OUTPUTS
    other = input_ids.clone()
    other[1, 25] = 0  # the window of token 12 begins at byte 24, so that byte 25 alone touches no real token
    assert relative_error(model(other).logits[1], together[1]) <= OUTPUTS


def test_gradients_reach_no_padding():
    model = tiny_model(mask_padding=True)
    input_ids = byte_batch([90, 3, 33], 120)
    embedded = []

    def keep(module, args, output):
        output.retain_grad()
        embedded.append(output)

    model.byteformer.embeddings.register_forward_hook(keep)
    logits = model(input_ids).logits
    logits[1].sum().backward()
    gradient = embedded[0].grad[:-1].split([44, 1, 15])  # tokens per row
    assert gradient[1].any() and not gradient[0].any() and not gradient[2].any()
    weight = model.byteformer.embeddings.byte_embeddings.weight.grad
    touched = weight.abs().sum(1).nonzero().flatten().tolist()
    assert touched == sorted(set(input_ids[1, :3].tolist()))


def test_gradients_equal_those_of_single_runs():
    model = tiny_model(mask_padding=True)
    lengths = [90, 3, 33]
    input_ids = byte_batch(lengths)
    labels = torch.tensor([1, 0, 4])
    model(input_ids, labels=labels).loss.backward()
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for row, length in enumerate(lengths):
        (model(input_ids[row : row + 1, :length], labels=labels[row : row + 1]).loss / 3).backward()
    assert_gradients_close(together, {name: parameter.grad for name, parameter in model.named_parameters()})
