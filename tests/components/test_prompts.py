# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The prompt ensemble: the paper's sentences by default, and clear refusals of what cannot be meant."""

import dataclasses
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from anomalib_aprilgan import PromptEnsemble

FIELDS = ("normal_states", "anomalous_states", "templates")
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
# Any words around one placeholder, other braces included.
ENTRIES = st.tuples(TEXT, TEXT).map("{}".join).filter(lambda entry: entry.count("{}") == 1)


def test_paper_has_7_normal_and_5_anomalous_states_in_35_templates():
    sentences = PromptEnsemble().sentences("bottle")
    assert len(sentences.normal) == 7 * 35
    assert len(sentences.anomalous) == 5 * 35
    assert len(set(sentences.normal + sentences.anomalous)) == 12 * 35


@pytest.mark.parametrize(
    ("kind", "index", "sentence"),
    [
        ("normal", 0, "a bad photo of a bottle."),
        ("normal", 34, "this is one bottle in the scene."),
        ("normal", 35, "a bad photo of a flawless bottle."),
        ("normal", -1, "this is one bottle without damage in the scene."),
        ("anomalous", 0, "a bad photo of a damaged bottle."),
        ("anomalous", 70, "a bad photo of a bottle with flaw."),
        ("anomalous", -1, "this is one bottle with damage in the scene."),
    ],
)
def test_sentences_of_the_paper_stand_where_they_belong(kind, index, sentence):
    assert getattr(PromptEnsemble().sentences("bottle"), kind)[index] == sentence


def test_states_are_outermost_and_templates_run_within():
    prompts = PromptEnsemble(["{}", "fresh {}"], ["rotten {}"], ["a {}.", "the {}!"])
    assert prompts.sentences("apple") == (
        ["a apple.", "the apple!", "a fresh apple.", "the fresh apple!"],
        ["a rotten apple.", "the rotten apple!"],
    )


@pytest.mark.parametrize("class_name", ["metal_nut", "{0}", "{name}", "{", "}}", "%s", r"\1", "Näh-Garn", " nut "])
def test_class_name_goes_in_as_it_stands(class_name):
    prompts = PromptEnsemble(["{}"], ["{} with {braces}"], ["photo {0} of {}."])
    assert prompts.sentences(class_name).normal == [f"photo {{0}} of {class_name}."]
    assert prompts.sentences(class_name).anomalous == [f"photo {{0}} of {class_name} with {{braces}}."]


def test_placeholder_in_a_class_name_is_no_placeholder():
    assert PromptEnsemble(["good {}"], ["bad {}"], ["a {}."]).sentences("x{}y").normal == ["a good x{}y."]


@given(
    class_name=TEXT.filter(str.strip),
    normal=st.lists(ENTRIES, min_size=1, max_size=4),
    anomalous=st.lists(ENTRIES, min_size=1, max_size=4),
    templates=st.lists(ENTRIES, min_size=1, max_size=4),
)
def test_there_is_one_sentence_a_state_and_template_and_each_names_the_class(class_name, normal, anomalous, templates):
    sentences = PromptEnsemble(normal, anomalous, templates).sentences(class_name)
    assert len(sentences.normal) == len(normal) * len(templates)
    assert len(sentences.anomalous) == len(anomalous) * len(templates)
    assert all(class_name in sentence for sentence in sentences.normal + sentences.anomalous)


def test_ensembles_with_the_same_words_are_equal_and_hash_alike():
    lists, tuples = PromptEnsemble(["{}"], ["bad {}"], ["a {}"]), PromptEnsemble(("{}",), ("bad {}",), ("a {}",))
    assert lists == tuples
    assert hash(lists) == hash(tuples)
    assert lists != PromptEnsemble()


def test_ensemble_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError, match="templates"):
        PromptEnsemble().templates = ("{}",)


@pytest.mark.parametrize("class_name", ["", "  ", "\n", None, 3, ["nut"]])
def test_class_name_without_a_visible_character_is_refused(class_name):
    expected = f"class_name must be a non-empty string such as 'metal_nut', got {class_name!r}."
    with pytest.raises(ValueError, match=re.escape(expected)):
        PromptEnsemble().sentences(class_name)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("entries", "error", "expected"),
    [
        ("a {}.", TypeError, "must be a list of strings, got str: 'a {}.'"),
        (None, TypeError, "must be a list of strings, got NoneType: None"),
        ({"a {}."}, TypeError, "must be a list of strings, got set"),
        (["a {}.", 3], TypeError, "must hold strings, got int: 3"),
        ([None], TypeError, "must hold strings, got NoneType: None"),
        ([], ValueError, "is empty. Give at least one entry such as 'perfect {}'"),
        (["no placeholder"], ValueError, "'no placeholder' holds 0 '{}', expected exactly one"),
        (["{} and {}"], ValueError, "'{} and {}' holds 2 '{}', expected exactly one"),
        (["{0}"], ValueError, "'{0}' holds 0 '{}', expected exactly one"),
        (["{}", ""], ValueError, "'' holds 0 '{}', expected exactly one"),
    ],
)
def test_bad_entries_are_refused_by_field(field, entries, error, expected):
    with pytest.raises(error, match=rf"^prompts\.{field}:? {re.escape(expected)}"):
        PromptEnsemble(**{field: entries})
