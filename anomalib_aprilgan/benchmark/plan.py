# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What a benchmark is to run: methods x datasets x categories x shots x seeds, as a list of single runs."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias, TypeVar

from anomalib import data, models
from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer

from .classes import PlanError, build_values, check_arguments, find_class, suggest
from .published import check_published_names

# Number of normal training images that a method may see: 0 is zero-shot, ``full`` are all of them.
Shots: TypeAlias = int | Literal["full"]
FULL = "full"
MAX_SEED = 2**32 - 1  # NumPy's
# The benchmark measures raw scores by itself.
SCORES_ONLY: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}
# Arguments that make runs comparable, so they are the benchmark's to set.
RESERVED_OF_METHODS = {"k_shot", "class_name", "few_shot_source", "reference_seed", *SCORES_ONLY}
RESERVED_OF_TRAINER = {
    "callbacks",
    "default_root_dir",
    "devices",
    "enable_progress_bar",
    "enable_model_summary",
    "logger",
}


@dataclass(frozen=True)
class Method:
    """A model to be compared.

    Attributes:
        class_path (str): Name of a model that anomalib knows, or path of a class or function, ``package.module.Name``.
        init_args (dict[str, Any]): Its arguments; ``k_shot`` and ``class_name`` are ours to set.
        shots (list[Shots] | None): Those to run instead of the benchmark's.
        trainer (dict[str, Any]): Arguments of anomalib's engine, such as ``max_epochs``. Without
            ``limit_val_batches`` there is no validation; with it, a split that equals the test's is refused.
        published_as (str | None): The method's name among the published figures, if these are its settings there.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    shots: list[Shots] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    published_as: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Images to compare on.

    Attributes:
        class_path (str): Name of a datamodule of anomalib, ``RenderedProducts``, or path of a class.
        init_args (dict[str, Any]): Its arguments; ``category`` is ours to set.
        categories (list[str]): Its categories; none if it has no such argument, as ``Folder``.
        class_names (dict[str, str]): What prompts call a category, where its name will not do; without categories by
            the dataset's name.
        max_train_images (int | None): Most normal training images, drawn with seed 0: references are taken from
            these, and these are the full training set.
        max_test_images (int | None): Most test images of each kind, normal and anomalous, drawn with seed 0.
        published_as (str | None): ``mvtec`` or ``visa`` if it is that dataset of the paper's tables.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    class_names: dict[str, str] = field(default_factory=dict)
    max_train_images: int | None = None
    max_test_images: int | None = None
    published_as: str | None = None


Entry = TypeVar("Entry", Method, Dataset)
# How the fields above look in a YAML file.
PLAIN_TYPES = {
    "class_path": str,
    "init_args": dict,
    "shots": list,
    "trainer": dict,
    "categories": list,
    "class_names": dict,
    "max_train_images": int,
    "max_test_images": int,
    "published_as": str,
}
TYPE_NAMES = {str: "text", dict: "names with values", list: "a list, such as [a, b]", int: "a whole number"}


@dataclass(frozen=True, eq=False)
class Run:
    """One row of the results: a method that judges the test images of a category."""

    method_name: str
    method: Method
    dataset_name: str
    dataset: Dataset
    category: str
    shots: Shots
    seed: int

    @property
    def key(self) -> str:
        """Short digest of all that decides about the result; a run with another is another run."""
        facts = {**asdict(self), "method": {**asdict(self.method), "shots": None, "published_as": None}}
        class_name = self.dataset.class_names.get(self.category)
        ours = {"categories": None, "class_names": class_name, "published_as": None}
        facts["dataset"] = {**asdict(self.dataset), **ours}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """For people: method, setting, images, seed."""
        return f"{self.method_name}, {setting_name(self.shots)}, {self.images_name}, seed {self.seed}"

    @property
    def images_name(self) -> str:
        """Dataset and category, for people; a dataset without categories by its name alone."""
        return f"{self.dataset_name}/{self.category}" if self.dataset.categories else self.dataset_name

    def check(self) -> None:
        """Look whether model and datamodule take their arguments.

        Raises:
            PlanError: If a class is unknown, or refuses them.
        """
        method, dataset = self.method, self.dataset
        check_arguments(f"Method {self.method_name!r}", find_class(method.class_path, models), self._model_arguments())
        build = find_class(dataset.class_path, data)
        check_arguments(f"Dataset {self.dataset_name!r}", build, {**dataset.init_args, **self._category()})

    def build_model(self) -> AnomalibModule:
        """The model, which gives raw scores and nothing else.

        Raises:
            TypeError: If it is no model of anomalib.
        """
        model = find_class(self.method.class_path, models)(**build_values(self._model_arguments()))
        if not isinstance(model, AnomalibModule):
            msg = f"class_path={self.method.class_path!r} gives a {type(model).__name__}, expected an AnomalibModule."
            raise TypeError(msg)
        return model

    def build_datamodule(self) -> AnomalibDataModule:
        """The datamodule, not set up.

        Raises:
            TypeError: If it is no datamodule of anomalib.
        """
        build = find_class(self.dataset.class_path, data)
        datamodule = build(**build_values(self.dataset.init_args), **self._category())
        if not isinstance(datamodule, AnomalibDataModule):
            msg = f"class_path={self.dataset.class_path!r} gives a {type(datamodule).__name__}, no AnomalibDataModule."
            raise TypeError(msg)
        return datamodule

    def _model_arguments(self) -> dict[str, Any]:
        known = inspect.signature(find_class(self.method.class_path, models)).parameters
        arguments = {**self.method.init_args, **SCORES_ONLY}
        if "k_shot" in known:
            arguments["k_shot"] = self.shots
        if "class_name" in known and self.category in self.dataset.class_names:
            arguments["class_name"] = self.dataset.class_names[self.category]
        return arguments

    def _category(self) -> dict[str, str]:
        return {"category": self.category} if self.dataset.categories else {}


def read_plan(kind: type[Entry], plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Entry]:
    """Methods or datasets by name, from plain data as a YAML file holds them.

    Args:
        kind: :class:`Method` or :class:`Dataset`.
        plain: Their fields.

    Raises:
        PlanError: If a field is unknown, missing, or of another type.

    Example:
        >>> read_plan(Dataset, {"bottles": {"class_path": "MVTecAD", "categories": ["bottle"]}})["bottles"].categories
        ['bottle']
    """
    known = [each.name for each in fields(kind)]
    for name, entry in plain.items():
        owner = f"{kind.__name__} {name!r}"
        if "class_path" not in entry:
            msg = f"{owner} has no class_path. Give it one, and perhaps {', '.join(known[1:])}."
            raise PlanError(msg)
        for key, value in entry.items():
            if key not in known:
                msg = f"{owner} has {key}, which is none of {', '.join(known)}.{suggest(key, known)}"
                raise PlanError(msg)
            wanted = PLAIN_TYPES[key]
            if not isinstance(value, wanted) and value is not None:
                msg = f"{key}={value!r} of {owner.lower()} must be {TYPE_NAMES[wanted]}."
                raise PlanError(msg)
    given = {name: {key: value for key, value in entry.items() if value is not None} for name, entry in plain.items()}
    return {name: kind(**entry) for name, entry in given.items()}


def setting_name(shots: Shots) -> str:
    """Name of a setting, as in the paper's tables.

    Example:
        >>> [setting_name(shots) for shots in (0, 4, "full")]
        ['zero-shot', '4-shot', 'full']
    """
    return {0: "zero-shot", FULL: FULL}.get(shots, f"{shots}-shot")


def list_runs(
    methods: Mapping[str, Method], datasets: Mapping[str, Dataset], shots: Sequence[Shots], seeds: Sequence[int]
) -> list[Run]:
    """All runs: dataset by dataset, setting by setting, so that a stopped benchmark has whole comparisons.

    Zero-shot has nothing to draw, so it runs with the first seed only.

    Raises:
        PlanError: If there is nothing to run, a class is unknown, or a method cannot have a setting.
    """
    for name, group in {"methods": methods, "datasets": datasets, "seeds": seeds}.items():
        if not group:
            msg = f"{name} is empty, so there is nothing to run. Name at least one."
            raise PlanError(msg)
    if wrong := [seed for seed in seeds if type(seed) is not int or not 0 <= seed <= MAX_SEED]:
        msg = f"seeds={wrong} must be whole numbers from 0 to {MAX_SEED}."
        raise PlanError(msg)
    for setting in shots:
        _check_shots(setting, "the benchmark")
    wanted = {name: list(dict.fromkeys(method.shots or shots)) for name, method in methods.items()}
    for name, method in methods.items():
        _check_method(name, method, wanted[name])
    for name, dataset in datasets.items():
        _check_dataset(name, dataset)
    settings = list(dict.fromkeys(setting for settings in wanted.values() for setting in settings))
    draws = list(dict.fromkeys(seeds))
    runs = [
        Run(method_name, method, dataset_name, dataset, category, setting, seed)
        for dataset_name, dataset in datasets.items()
        for setting in settings
        for category in dict.fromkeys(dataset.categories or [dataset_name])
        for seed in (draws[:1] if setting == 0 else draws)
        for method_name, method in methods.items()
        if setting in wanted[method_name]
    ]
    for run in {(run.method_name, run.dataset_name): run for run in runs}.values():
        run.check()
    return runs


def _check_shots(setting: Shots, owner: str) -> None:
    if setting != FULL and (type(setting) is not int or setting < 0):  # YAML's true is an int, too
        msg = f"shots={setting!r} of {owner} must be 0, a number of references, or {FULL!r}."
        raise PlanError(msg)


def _check_method(name: str, method: Method, shots: Sequence[Shots]) -> None:
    if not shots:
        msg = f"Method {name!r} has no shots. Give shots, such as [1, 2, 4], for all methods or for this one."
        raise PlanError(msg)
    takes_references = "k_shot" in inspect.signature(find_class(method.class_path, models)).parameters
    for setting in shots:
        _check_shots(setting, f"method {name!r}")
        if setting == FULL and takes_references:
            msg = f"Method {name!r} takes references by number (k_shot): {FULL!r} is not among its shots."
            raise PlanError(msg)
    if reserved := RESERVED_OF_METHODS & method.init_args.keys():
        msg = (
            f"Method {name!r} has {', '.join(sorted(reserved))} in init_args, which the benchmark sets. For k_shot use "
            "shots; for class_name, class_names of datasets; for reference_seed, seeds."
        )
        raise PlanError(msg)
    if reserved := RESERVED_OF_TRAINER & method.trainer.keys():
        msg = f"Method {name!r} has {', '.join(sorted(reserved))} in trainer, which the benchmark sets. Leave it out."
        raise PlanError(msg)
    check_arguments(f"trainer of method {name!r}", Trainer, method.trainer)
    check_published_names(None, method.published_as)


def _check_dataset(name: str, dataset: Dataset) -> None:
    find_class(dataset.class_path, data)
    for limit in ("max_train_images", "max_test_images"):
        most = getattr(dataset, limit)
        if most is not None and most < 1:
            msg = f"{limit}={most} of dataset {name!r} must be at least 1, or left out."
            raise PlanError(msg)
    known = dataset.categories or [name]
    if unknown := [each for each in dataset.class_names if each not in known]:
        msg = f"class_names of dataset {name!r} has {', '.join(unknown)}, but its categories are {', '.join(known)}."
        raise PlanError(msg)
    check_published_names(dataset.published_as, None)
