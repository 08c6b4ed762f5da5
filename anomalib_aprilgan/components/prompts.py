# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Compositional prompts: states x templates -> sentences about one class of product."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .prompt_templates import ANOMALOUS_STATES, NORMAL_STATES, TEMPLATES

PLACEHOLDER = "{}"


class Sentences(NamedTuple):
    """Sentences about one class: ``normal`` and ``anomalous``, each a list of strings."""

    normal: list[str]
    anomalous: list[str]


@dataclass(frozen=True)
class PromptEnsemble:
    """Words that describe a normal and an anomalous product.

    Source: paper section 2.1. The class name goes in as it stands (``metal_nut`` stays ``metal_nut``).

    Args:
        normal_states (Sequence[str]): States of a normal product. Defaults to the paper's 7.
        anomalous_states (Sequence[str]): States of an anomalous product. Defaults to the paper's 5.
        templates (Sequence[str]): Sentences about a product in some state. Defaults to the paper's 35.

    Raises:
        TypeError: If a field is not a sequence of strings.
        ValueError: If a field is empty or an entry does not hold exactly one ``{}``.

    Example:
        >>> prompts = PromptEnsemble(["fresh {}"], ["rotten {}", "{} with mould"], ["a photo of a {}."])
        >>> prompts.sentences("apple").anomalous
        ['a photo of a rotten apple.', 'a photo of a apple with mould.']
    """

    normal_states: Sequence[str] = NORMAL_STATES
    anomalous_states: Sequence[str] = ANOMALOUS_STATES
    templates: Sequence[str] = TEMPLATES

    def __post_init__(self) -> None:
        """Check the fields and turn them into tuples."""
        for field in ("normal_states", "anomalous_states", "templates"):
            # A frozen dataclass sets its fields this way; tuples make equal ensembles hash alike.
            object.__setattr__(self, field, _checked(field, getattr(self, field)))

    def sentences(self, class_name: str) -> Sentences:
        """Fill every template with every state of the class, states outermost.

        Args:
            class_name (str): Name of the product, inserted unchanged.

        Returns:
            Sentences: ``len(states) * len(templates)`` normal and as many anomalous sentences.

        Raises:
            ValueError: If the class name is not a string with a visible character.
        """
        if not isinstance(class_name, str) or not class_name.strip():
            msg = f"class_name must be a non-empty string such as 'metal_nut', got {class_name!r}."
            raise ValueError(msg)
        return Sentences(
            normal=list(_fill(self.templates, self.normal_states, class_name)),
            anomalous=list(_fill(self.templates, self.anomalous_states, class_name)),
        )


def as_prompts(prompts: PromptEnsemble | dict[str, Any] | None) -> PromptEnsemble:
    """The ensemble that an argument means; plain data come from YAML files and checkpoints.

    Raises:
        ValueError: If plain data hold an unknown key.
    """
    if prompts is None:
        return PromptEnsemble()
    if isinstance(prompts, PromptEnsemble):
        return prompts
    try:
        return PromptEnsemble(**prompts)
    except TypeError as error:
        msg = f"prompts={prompts!r} is not understood: {error}. Keys are normal_states, anomalous_states, templates."
        raise ValueError(msg) from error


def _fill(templates: Iterable[str], states: Sequence[str], class_name: str) -> Iterable[str]:
    # str.replace and not str.format: class names and templates may hold other braces.
    described = [state.replace(PLACEHOLDER, class_name) for state in states]
    templates = tuple(templates)
    return (template.replace(PLACEHOLDER, description) for description in described for template in templates)


def _checked(field: str, entries: Sequence[str]) -> tuple[str, ...]:
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        msg = f"prompts.{field} must be a list of strings, got {type(entries).__name__}: {entries!r}."
        raise TypeError(msg)
    if not entries:
        msg = f"prompts.{field} is empty. Give at least one entry such as 'perfect {{}}', or leave the default."
        raise ValueError(msg)
    for entry in entries:
        if not isinstance(entry, str):
            msg = f"prompts.{field} must hold strings, got {type(entry).__name__}: {entry!r}."
            raise TypeError(msg)
        if entry.count(PLACEHOLDER) != 1:
            msg = f"prompts.{field}: {entry!r} holds {entry.count(PLACEHOLDER)} '{{}}', expected exactly one."
            raise ValueError(msg)
    return tuple(entries)
