# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Plans: what becomes of them, and mistakes told before anything runs."""

import json
import logging
from dataclasses import replace

import pytest
from anomalib import data, models
from anomalib.pre_processing import PreProcessor

from anomalib_aprilgan.benchmark.classes import PlanError, find_class
from anomalib_aprilgan.benchmark.padim import BenchmarkPadim
from anomalib_aprilgan.benchmark.patchcore import BenchmarkPatchcore
from anomalib_aprilgan.benchmark.plan import Dataset, Method, list_runs, read_plan
from anomalib_aprilgan.benchmark.winclip import BenchmarkWinClip
from anomalib_aprilgan.cli import main
from anomalib_aprilgan.demo import RenderedProducts

METHODS = {"ours": {"class_path": "AprilGAN"}, "theirs": {"class_path": "Patchcore"}}
DATASETS = {"photos": {"class_path": "MVTecAD", "categories": ["bottle", "cable"]}}


def no_model(post_processor, evaluator, visualizer):
    """What a plan may name by mistake."""
    return {}


def runs_of(methods=METHODS, datasets=DATASETS, shots=(1,), seeds=(0,)):
    return list_runs(read_plan(Method, methods), read_plan(Dataset, datasets), shots, seeds)


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shots": ["full"]}, "Method 'ours' takes references by number"),
            ({"shots": [-1]}, "shots=-1 of method 'ours' must be 0, a number"),
            ({"shots": [True]}, "shots=True of method 'ours' must be 0, a number"),
            ({"shots": 1}, r"shots=1 of method 'ours' must be a list, such as \[a, b\]"),
            ({"class_path": "AprilGun"}, r"'AprilGun' is not found: .* Did you mean AprilGAN\? Give a name of"),
            ({"class_path": "no_such.Model"}, "class_path='no_such.Model' is not found: No module"),
            ({"class_path": ".own.Model"}, "class_path='.own.Model' is not found: "),
            ({"class_path": "image"}, "class_path='image' is a module, expected a class or a function"),
            ({"init_args": {"k_shot": 2}}, "has k_shot in init_args, which the benchmark sets. For k_shot use shots"),
            ({"init_args": {"few_shot_source": "x"}}, "has few_shot_source in init_args"),
            (
                {"init_args": {"bakbone": "x"}},
                r"Method 'ours': AprilGAN does not take bakbone\. Did you mean backbone\? Its arguments are class_",
            ),
            ({"trainer": {"max_epoch": 1}}, r"trainer of method 'ours': .*take max_epoch\. Did you mean max_epochs\?"),
            ({"trainer": {"callbacks": []}}, "Method 'ours' has callbacks in trainer, which the benchmark sets"),
            ({"published_as": "AprilGAN"}, "published_as='AprilGAN' is not among the published figures. Choose of APR"),
            ({"init_arg": {}}, r"Method 'ours' has init_arg, which is none of class_path, .* Did you mean init_args\?"),
            ({"seeds": [1]}, "Method 'ours' has seeds, which is none of class_path, init_args, shots"),
        ],
    )
    def test_wrong_methods(self, changes, message):
        with pytest.raises(PlanError, match=message):
            runs_of({**METHODS, "ours": {**METHODS["ours"], **changes}})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"class_path": "MVTecDA"}, r"class_path='MVTecDA' is not found: .* Did you mean MVTecAD\?"),
            ({"categories": "bottle"}, "categories='bottle' of dataset 'photos' must be a list"),
            ({"init_args": {"rooot": "x"}}, r"Dataset 'photos': MVTecAD does not take rooot\. Did you mean root\?"),
            (
                {"class_path": "Folder", "categories": []},
                "Dataset 'photos': Folder: missing a required argument: 'name'",
            ),
            (
                {"class_path": "Folder", "categories": [], "init_args": {"name": "x", "normal_dirr": "good"}},
                r"Dataset 'photos': Folder does not take normal_dirr\. Did you mean normal_dir\? Its arguments are ",
            ),
            ({"class_names": {"botle": "bottle"}}, "class_names of dataset 'photos' has botle, but its categories are"),
            ({"max_test_images": 0}, "max_test_images=0 of dataset 'photos' must be at least 1"),
            ({"max_train_images": "all"}, "max_train_images='all' of dataset 'photos' must be a whole number"),
            ({"published_as": "MVTec"}, "published_as='MVTec' is not among the published figures. Choose of mvtec"),
        ],
    )
    def test_wrong_datasets(self, changes, message):
        with pytest.raises(PlanError, match=message):
            runs_of(datasets={"photos": {**DATASETS["photos"], **changes}})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"methods": {}}, "methods is empty, so there is nothing to run"),
            ({"seeds": []}, "seeds is empty"),
            ({"seeds": [0, -1]}, r"seeds=\[-1\] must be whole numbers from 0 to 4294967295"),
            ({"shots": []}, "Method 'ours' has no shots"),
            (
                {"shots": [0, -1], "methods": {"ours": {"class_path": "AprilGAN", "shots": [0]}}},
                "shots=-1 of the benchmark must be 0, a number of references, or 'full'",
            ),
            ({"methods": {"ours": {"init_args": {}}}}, "Method 'ours' has no class_path"),
        ],
    )
    def test_nothing_to_run(self, changes, message):
        with pytest.raises(PlanError, match=message):
            runs_of(**changes)

    def test_what_is_no_model_or_no_data_is_told_by_name(self):
        run = runs_of({"odd": {"class_path": "test_plan.no_model"}})[0]
        with pytest.raises(TypeError, match="gives a dict, expected an AnomalibModule"):
            run.build_model()
        odd = {"odd": {"class_path": "fractions.Fraction", "init_args": {"numerator": 1}}}
        with pytest.raises(TypeError, match="gives a Fraction, no AnomalibDataModule"):
            replace(run, dataset=read_plan(Dataset, odd)["odd"]).build_datamodule()

    def test_the_command_tells_them_in_one_line(self, tmp_path, capsys, monkeypatch):
        for name in ("anomalib", "lightning.pytorch", "lightning_fabric"):  # the command sets them
            monkeypatch.setattr(logging.getLogger(name), "level", logging.ERROR)
        plan = {"methods": {"ours": {"class_path": "AprilGun"}}, "datasets": DATASETS, "shots": [1]}
        options = [f"--{name}={json.dumps(value)}" for name, value in plan.items()]
        assert main(["benchmark", *options, f"--output={tmp_path / 'report'}"]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: class_path='AprilGun' is not found")
        assert told.count("\n") == 1
        assert not (tmp_path / "report").exists()


class TestRuns:
    def test_repeated_entries_run_once(self):
        datasets = {"photos": {**DATASETS["photos"], "categories": ["bottle", "bottle"]}}
        assert len(runs_of(datasets=datasets, shots=[1, 1], seeds=[0, 0])) == 2

    def test_a_dataset_without_categories_is_named_once(self):
        whole = {"bottle cap": {"class_path": "Folder", "init_args": {"name": "cap", "normal_dir": "good"}}}
        assert str(runs_of(datasets=whole)[0]) == "ours, 1-shot, bottle cap, seed 0"
        assert str(runs_of()[0]) == "ours, 1-shot, photos/bottle, seed 0"

    def test_keys_name_what_decides_and_nothing_else(self):
        def keys(*, of_method=None, of_dataset=None):
            datasets = {"photos": {**DATASETS["photos"], **(of_dataset or {})}}
            methods = {"ours": {**METHODS["ours"], **(of_method or {})}}
            return [run.key for run in runs_of(methods, datasets) if run.category == "bottle"]

        first = keys()
        assert keys(of_method={"published_as": "APRIL-GAN", "shots": [1]}) == first
        assert keys(of_dataset={"published_as": "mvtec", "categories": ["bottle"]}) == first
        assert keys(of_dataset={"class_names": {"cable": "wire"}}) == first
        changes = [{"class_names": {"bottle": "flask"}}, {"max_test_images": 3}, {"init_args": {"root": "x"}}]
        others = [keys(of_dataset=change) for change in changes]
        others.append(keys(of_method={"init_args": {"image_size": 224}}))
        assert len({tuple(each) for each in [*others, first]}) == 5

    def test_class_names_reach_the_models_that_have_them(self, tiny_arguments):
        methods = {
            "ours": {"class_path": "AprilGAN", "init_args": tiny_arguments},
            "theirs": {"class_path": "test_plan.no_model"},
        }
        datasets = {"photos": {**DATASETS["photos"], "class_names": {"bottle": "flask"}}}
        runs = {(run.method_name, run.category): run for run in runs_of(methods, datasets)}
        assert runs["ours", "bottle"].build_model().class_name == "flask"
        assert runs["ours", "cable"].build_model().class_name is None


class TestClasses:
    @pytest.mark.parametrize("path", ["WinClip", "anomalib.models.WinClip", "anomalib.models.image.WinClip"])
    def test_anomalibs_traps_are_met_by_no_path(self, path):
        assert find_class(path, models) is BenchmarkWinClip
        assert find_class(path.replace("WinClip", "Padim"), models) is BenchmarkPadim
        assert find_class(path.replace("WinClip", "Patchcore"), models) is BenchmarkPatchcore

    def test_names_of_ours_and_of_anomalib(self):
        assert find_class("RenderedProducts", data) is RenderedProducts
        assert find_class("anomalib.models.image.stfpm.Stfpm", models) is models.Stfpm

    def test_arguments_may_be_classes_with_their_own(self):
        resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [32, 48]}}
        pre_processor = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": resize}}
        arguments = {"backbone": "resnet18", "layers": ["layer1"], "pre_trained": False, "pre_processor": pre_processor}
        model = runs_of({"theirs": {"class_path": "Patchcore", "init_args": arguments}})[0].build_model()
        assert isinstance(model.pre_processor, PreProcessor)
        assert model.pre_processor.transform.size == [32, 48]
