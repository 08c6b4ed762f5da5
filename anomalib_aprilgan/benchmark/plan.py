# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What a benchmark is to run: methods x datasets x categories x shots x seeds, as a list of single runs."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from typing import Any, Literal, TypeAlias, TypeVar

from anomalib import data, models
from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule

from .published import check_published_names

# Number of normal training images that a method may see: 0 is zero-shot, ``full`` are all of them.
Shots: TypeAlias = int | Literal["full"]
FULL = "full"
# Short names for what anomalib does not have, or not fit for comparisons.
OUR_NAMES = {
    "CLIP": "anomalib_aprilgan.benchmark.plain_clip.clip",
    "CLIP-AC": "anomalib_aprilgan.benchmark.plain_clip.clip_ac",
    "Padim": "anomalib_aprilgan.benchmark.padim.BenchmarkPadim",
    "RenderedProducts": "anomalib_aprilgan.demo.RenderedProducts",
    "WinClip": "anomalib_aprilgan.benchmark.winclip.BenchmarkWinClip",
}


@dataclass(frozen=True)
class Method:
    """A model to be compared.

    Attributes:
        class_path (str): Name of a model that anomalib knows, or path of a class or function, ``package.module.Name``.
        init_args (dict[str, Any]): Its arguments; ``k_shot`` and ``class_name`` are ours to set.
        shots (list[Shots] | None): Those to run instead of the benchmark's.
        trainer (dict[str, Any]): Arguments of anomalib's engine, such as ``max_epochs``. Without
            ``limit_val_batches`` there is no validation: nothing can be fitted to a split that equals the test's.
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
        published_as (str | None): ``mvtec`` or ``visa`` if it is that dataset of the paper's tables.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    class_names: dict[str, str] = field(default_factory=dict)
    published_as: str | None = None


Entry = TypeVar("Entry", Method, Dataset)


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
        facts = {**asdict(self), "method": {**asdict(self.method), "shots": None}}
        facts["dataset"] = {**asdict(self.dataset), "categories": None}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """For people: method, setting, images, seed."""
        return f"{self.method_name}, {setting_name(self.shots)}, {self.dataset_name}/{self.category}, seed {self.seed}"

    def build_model(self) -> AnomalibModule:
        """The model, which gives raw scores and nothing else.

        Raises:
            TypeError: If it is no model of anomalib.
        """
        build = find_class(self.method.class_path, models)
        known = inspect.signature(build).parameters
        arguments = dict(self.method.init_args)
        if "k_shot" in known:
            arguments["k_shot"] = self.shots
        if "class_name" in known and self.category in self.dataset.class_names:
            arguments["class_name"] = self.dataset.class_names[self.category]
        model = build(**arguments, post_processor=False, evaluator=False, visualizer=False)
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
        category = {"category": self.category} if self.dataset.categories else {}
        datamodule = build(**self.dataset.init_args, **category)
        if not isinstance(datamodule, AnomalibDataModule):
            msg = f"class_path={self.dataset.class_path!r} gives a {type(datamodule).__name__}, no AnomalibDataModule."
            raise TypeError(msg)
        return datamodule


def read_plan(kind: type[Entry], plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Entry]:
    """Methods or datasets by name, from plain data as a YAML file holds them.

    Args:
        kind: :class:`Method` or :class:`Dataset`.
        plain: Their fields.

    Raises:
        ValueError: If a field is unknown or missing.

    Example:
        >>> read_plan(Dataset, {"bottles": {"class_path": "MVTecAD", "categories": ["bottle"]}})["bottles"].categories
        ['bottle']
    """
    known = {each.name: each for each in fields(kind)}
    for name, entry in plain.items():
        if "class_path" not in entry or not entry.keys() <= known.keys():
            fields_of = f"It needs class_path, and may have {', '.join(known)}."
            msg = f"{kind.__name__} {name!r} has {', '.join(entry)}. {fields_of}"
            raise ValueError(msg)
    return {name: kind(**entry) for name, entry in plain.items()}


def setting_name(shots: Shots) -> str:
    """Name of a setting, as in the paper's tables.

    Example:
        >>> [setting_name(shots) for shots in (0, 4, "full")]
        ['zero-shot', '4-shot', 'full']
    """
    return {0: "zero-shot", FULL: FULL}.get(shots, f"{shots}-shot")


def find_class(class_path: str, home: Any) -> Any:  # ruff: ignore[any-type] - a module, and a class or function in it
    """Find a class or function by its path, or by its name among ours or in anomalib.

    Raises:
        ValueError: If there is none.
    """
    module_name, _, name = OUR_NAMES.get(class_path, class_path).rpartition(".")
    try:
        module = import_module(module_name) if module_name else home
        return getattr(module, name)
    except (ImportError, AttributeError) as error:
        msg = f"class_path={class_path!r} is not found: {error}. Give a name of {home.__name__} or package.module.Name."
        raise ValueError(msg) from error


def list_runs(
    methods: Mapping[str, Method], datasets: Mapping[str, Dataset], shots: Sequence[Shots], seeds: Sequence[int]
) -> list[Run]:
    """All runs: dataset by dataset, setting by setting, so that a stopped benchmark has whole comparisons.

    Zero-shot has nothing to draw, so it runs with the first seed only.

    Raises:
        ValueError: If there is nothing to run, a class is unknown, or a method cannot have a setting.
    """
    for name, group in {"methods": methods, "datasets": datasets, "seeds": seeds}.items():
        if not group:
            msg = f"{name} is empty, so there is nothing to run. Name at least one."
            raise ValueError(msg)
    for name, method in methods.items():
        _check_shots(name, method, method.shots or shots)
    for dataset in datasets.values():
        find_class(dataset.class_path, data)
        check_published_names(dataset.published_as, None)
    wanted = {name: method.shots or list(shots) for name, method in methods.items()}
    settings = list(dict.fromkeys(setting for settings in wanted.values() for setting in settings))
    return [
        Run(method_name, method, dataset_name, dataset, category, setting, seed)
        for dataset_name, dataset in datasets.items()
        for setting in settings
        for category in dataset.categories or [dataset_name]
        for seed in (seeds[:1] if setting == 0 else seeds)
        for method_name, method in methods.items()
        if setting in wanted[method_name]
    ]


def _check_shots(name: str, method: Method, shots: Sequence[Shots]) -> None:
    check_published_names(None, method.published_as)
    takes_references = "k_shot" in inspect.signature(find_class(method.class_path, models)).parameters
    if not shots:
        msg = f"Method {name!r} has no shots. Give shots, such as [1, 2, 4], for all methods or for this one."
        raise ValueError(msg)
    for setting in shots:
        if setting != FULL and (not isinstance(setting, int) or setting < 0):
            msg = f"shots={setting!r} of method {name!r} must be 0, a number of references, or {FULL!r}."
            raise ValueError(msg)
        if setting == FULL and takes_references:
            msg = f"Method {name!r} takes references by number (k_shot): {FULL!r} is not among its shots."
            raise ValueError(msg)
    if reserved := {"k_shot", "class_name"} & method.init_args.keys():
        msg = f"Method {name!r} has {', '.join(sorted(reserved))} in init_args. Use shots, and class_names of datasets."
        raise ValueError(msg)
