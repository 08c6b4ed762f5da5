# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The memory bank finds the nearest of all reference patches, however the work is cut."""

import hypothesis.strategies as st
import pytest
import torch
from anomalib.models.components import KCenterGreedy
from hypothesis import given
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from anomalib_aprilgan.april_gan import memory_bank
from anomalib_aprilgan.april_gan.memory_bank import FrugalSearch, MemoryBank

# Two references of two patches each: along the first axis, along the second, and twice in between.
REFERENCES = torch.tensor([[[2.0, 0.0], [0.0, 5.0]], [[3.0, 3.0], [4.0, 4.0]]])


def filled(*updates: torch.Tensor) -> MemoryBank:
    bank = MemoryBank()
    for tokens in updates:
        bank.update(tokens)
    bank.finalize()
    return bank


def test_distances_are_one_minus_the_largest_cosine():
    queries = torch.tensor([[[7.0, 0.0], [-1.0, 0.0]], [[3.0, 4.0], [-1.0, -1.0]]])
    nearest = [[1.0, 0.0], [(3 + 4) / (5 * 2**0.5), 0.0]]
    # (-1, -1) is turned away from all: its nearest are the axes, at minus one over the root of two.
    nearest[1][1] = -1 / 2**0.5
    torch.testing.assert_close(filled(REFERENCES).distance(queries), 1 - torch.tensor(nearest))


def test_tokens_are_kept_at_unit_length_reference_after_reference():
    half = 0.5**0.5
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [half, half], [half, half]])
    torch.testing.assert_close(filled(REFERENCES).tokens, expected)


def test_updates_add_up_until_the_bank_is_finalised():
    assert torch.equal(filled(REFERENCES[:1], REFERENCES[1:]).tokens, filled(REFERENCES).tokens)


def test_finalising_anew_replaces_the_bank():
    bank = filled(REFERENCES)
    bank.update(torch.tensor([[[0.0, 1.0]]]))
    assert len(bank.tokens) == 4
    bank.finalize()
    assert bank.tokens.tolist() == [[0.0, 1.0]]


def test_coreset_keeps_what_lies_farthest_apart():
    bank = MemoryBank()
    near = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.02]])
    bank.update(torch.cat([near, torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.01, 1.0]])])[None])
    bank.finalize(coreset_ratio=0.5)
    assert len(bank.tokens) == 3
    distance = bank.distance(torch.eye(2)[None])
    torch.testing.assert_close(distance, torch.zeros(1, 2), rtol=0, atol=1e-3)


def test_a_step_of_the_search_is_anomalibs_in_a_fraction_of_the_memory():
    features = torch.randn(2000, 64)
    distances, largest = [], []
    for search in (KCenterGreedy(features, 0.5), FrugalSearch(features, 0.5)):
        search.features = features
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            for centre in (3, 5):
                search.update_distances(torch.tensor(centre))
        distances.append(search.min_distances)
        largest.append(max(event.cpu_memory_usage for event in record.events()))
    torch.testing.assert_close(*distances, rtol=1e-5, atol=1e-5)
    assert largest[0] >= features.nbytes > 10 * largest[1]


def test_coreset_is_the_same_every_time_and_leaves_the_generator_alone():
    tokens, banks = torch.randn(2, 20, 4), []
    for seed in range(2):
        torch.manual_seed(seed)
        bank = MemoryBank()
        bank.update(tokens)
        bank.finalize(coreset_ratio=0.25)
        banks.append(bank.tokens)
        drawn = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(*banks)


@pytest.mark.parametrize(("patches", "smallest"), [(4, "0.25"), (49, "0.020409"), (21904, "4.6e-05")])
def test_coreset_of_no_patch_is_refused_and_the_ratio_that_it_names_is_not(patches, smallest):
    bank, tokens = MemoryBank(), torch.randn(1, patches, 2)
    bank.update(tokens)
    message = rf"coreset_ratio=1e-05 keeps none of the {patches} patches .* Set it to {smallest} or more"
    with pytest.raises(ValueError, match=message):
        bank.finalize(coreset_ratio=1e-5)
    bank.update(tokens)
    bank.finalize(coreset_ratio=float(smallest))
    assert len(bank.tokens) == 1


def test_bank_is_fitted_once_it_is_finalised():
    bank = MemoryBank()
    assert not bank.is_fitted
    bank.update(REFERENCES)
    assert not bank.is_fitted
    bank.finalize()
    assert bank.is_fitted


def test_tokens_of_half_precision_are_compared_in_float32():
    distance = filled(REFERENCES.bfloat16()).distance(REFERENCES.bfloat16())
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, torch.zeros(2, 2))


@pytest.mark.parametrize("chunk", [3, 1024])
def test_narrow_bank_keeps_half_the_memory_and_nearly_the_distances(monkeypatch, chunk):
    monkeypatch.setattr(memory_bank, "CHUNK", chunk)
    tokens, queries = torch.randn(3, 5, 32), torch.randn(2, 6, 32)
    tokens[..., 0], queries[..., 0] = 20.0, 20.0  # ViTs have such channels
    exact, narrow = MemoryBank(), MemoryBank(torch.bfloat16)
    for bank in (exact, narrow):
        bank.update(tokens)
        bank.finalize()
    assert narrow.tokens.dtype == torch.bfloat16
    error = narrow.distance(queries) - exact.distance(queries)
    assert narrow.distance(queries).dtype == torch.float32
    assert 0 < error.abs().max() < 2e-3
    # Another patch may be taken for the nearest, but its distance is the true one.
    every = 1 - nn.functional.cosine_similarity(queries.flatten(0, 1)[:, None], tokens.flatten(0, 1)[None], dim=-1)
    off = (narrow.distance(queries).flatten()[:, None] - every).abs().amin(dim=1)
    assert off.max() < 2e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_similarities_to_many_references_are_never_there_at_once(monkeypatch, dtype):
    monkeypatch.setattr(memory_bank, "CHUNK", 20)
    sizes = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # ruff: ignore[bad-dunder-method-name]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and "matmul" in str(function):
                sizes.append(result.numel())
            return result

    bank = MemoryBank(dtype)
    bank.update(torch.randn(4, 25, 8))
    bank.finalize()
    with Watch():
        bank.distance(torch.randn(2, 6, 8))
    assert sizes == [2 * 6 * 20] * 5  # images, patches, references at a time; of 100 references


def test_banks_of_any_precision_take_each_others_tokens():
    narrow, exact = MemoryBank(torch.bfloat16), MemoryBank()
    narrow.load_state_dict(filled(REFERENCES).state_dict())
    exact.load_state_dict(narrow.state_dict())
    assert (narrow.tokens.dtype, exact.tokens.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(exact.distance(REFERENCES), torch.zeros(2, 2), rtol=0, atol=1e-3)


def test_patch_without_content_is_far_from_all_and_not_nan():
    assert filled(REFERENCES).distance(torch.zeros(1, 1, 2)).tolist() == [[1.0]]


@pytest.mark.parametrize("shape", [(2,), (4, 2), (1, 2, 2, 2)])
def test_tokens_of_other_rank_are_refused(shape):
    with pytest.raises(ValueError, match=rf"takes patch tokens \(K, P, W\), got a tensor of shape \({shape[0]}"):
        MemoryBank().update(torch.ones(shape))


@pytest.mark.parametrize("bank", [MemoryBank(), filled(REFERENCES)], ids=["new", "finalised"])
def test_finalising_without_references_is_refused(bank):
    with pytest.raises(RuntimeError, match=r"has collected no references: call update\(tokens\) before finalize"):
        bank.finalize()


def test_empty_bank_knows_no_distance():
    bank = MemoryBank()
    bank.update(REFERENCES)
    with pytest.raises(RuntimeError, match=r"The memory bank is empty: call update\(tokens\) and finalize"):
        bank.distance(REFERENCES)


@pytest.mark.parametrize("chunk", [1, 4, 15, 1024])
def test_size_of_chunks_does_not_matter(monkeypatch, chunk):
    bank = filled(torch.randn(3, 5, 8))
    queries = torch.randn(2, 6, 8)
    whole = bank.distance(queries)
    monkeypatch.setattr(memory_bank, "CHUNK", chunk)
    torch.testing.assert_close(bank.distance(queries), whole, rtol=0, atol=1e-6)


@given(
    images=st.integers(1, 3),
    patches=st.integers(1, 6),
    references=st.integers(1, 3),
    width=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_distance_is_that_of_trying_every_pair(images, patches, references, width, seed):
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(references, patches, width, generator=generator)
    queries = torch.randn(images, patches, width, generator=generator)
    cosine = nn.CosineSimilarity(dim=0)
    expected = [
        [min(1 - cosine(query, reference).item() for reference in memory.flatten(0, 1)) for query in image]
        for image in queries
    ]
    distance = filled(memory).distance(queries)
    torch.testing.assert_close(distance, torch.tensor(expected), rtol=0, atol=1e-5)
    assert distance.min() > -1e-6
    assert distance.max() < 2 + 1e-6


@pytest.mark.parametrize("target", [MemoryBank(), filled(torch.ones(5, 7, 3))], ids=["empty", "of another size"])
def test_state_dict_brings_a_bank_of_any_size(target):
    saved = filled(REFERENCES)
    nn.ModuleList([target]).load_state_dict(nn.ModuleList([saved]).state_dict())
    assert target.is_fitted
    assert torch.equal(target.tokens, saved.tokens)


def test_state_dict_of_an_empty_bank_empties_another():
    bank = filled(REFERENCES)
    bank.load_state_dict(MemoryBank().state_dict())
    assert not bank.is_fitted


def test_references_that_are_not_finalised_are_not_saved():
    bank = MemoryBank()
    bank.update(REFERENCES)
    assert {name: tensor.numel() for name, tensor in bank.state_dict().items()} == {"tokens": 0}
