# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Means, deviations, the paper's figures, and what becomes of runs that are missing, from rows made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from anomalib_aprilgan.benchmark.metrics import COLUMNS, IMAGE_COLUMNS
from anomalib_aprilgan.benchmark.plan import Dataset, Method, list_runs
from anomalib_aprilgan.benchmark.published import CATEGORIES, check_published_names, published_figure
from anomalib_aprilgan.benchmark.report import unsteady_times, write_report
from anomalib_aprilgan.benchmark.single_run import PAPER_COLUMNS, ROW_COLUMNS
from anomalib_aprilgan.benchmark.summary import category_rows, comparison_rows, cost_rows, group_rows, image_rows
from anomalib_aprilgan.benchmark.tables import Table, as_html, as_latex, as_markdown

METHOD = Method("AprilGAN", shots=[1], published_as="APRIL-GAN")


def make_rows(runs, value=lambda run: 0.5, *, paper=0.25):
    """A row for each run with the same value in all columns of one protocol."""
    rows = []
    for run in runs:
        metrics = {**dict.fromkeys(COLUMNS, value(run)), **dict.fromkeys(PAPER_COLUMNS, paper)}
        names = {"run": run.key, "method": run.method_name, "dataset": run.dataset_name, "category": run.category}
        facts = {**names, "shots": run.shots, "seed": run.seed, **metrics}
        facts |= {"test_images": 5, "anomalous_images": 2, "map_size": "56x56"}
        rows.append({**dict.fromkeys(ROW_COLUMNS, ""), **{key: str(fact) for key, fact in facts.items()}})
    return rows


@pytest.fixture
def runs():
    """Two seeds on all of VisA's categories, by number."""
    categories = [f"c{number}" for number in range(CATEGORIES["visa"])]
    dataset = Dataset("Visa", categories=categories, published_as="visa")
    return list_runs({"AprilGAN": METHOD}, {"VisA": dataset}, [], [0, 1])


def test_means_are_over_categories_and_deviations_over_seeds(runs):
    """Seed 0 has 0.4 in the mean, seed 1 has 0.6: deviation 0.1 times the root of 2, in percent."""
    groups = group_rows(make_rows(runs, lambda run: 0.4 + 0.2 * run.seed + 0.01 * (-1) ** int(run.category[1:])), runs)
    streaming, paper = list(comparison_rows(groups))[:2]
    assert streaming == ["1-shot", "AprilGAN", "streaming", "2", *["50.0 ± 14.1"] * 7]
    assert paper == ["1-shot", "AprilGAN", "paper", "2", *["50.0 ± 14.1"] * 4, *["25.0 ± 0.0"] * 3]


def test_papers_figures_and_the_difference_stand_below(runs):
    printed, difference = list(comparison_rows(group_rows(make_rows(runs), runs)))[2:]
    assert printed[:4] == ["1-shot", "APRIL-GAN, as published", "paper", "5"]
    assert printed[4:] == [
        *("96.0 ± 0.0", "38.5 ± 0.3", "30.9 ± 0.3", "90.0 ± 0.1"),
        *("91.2 ± 0.8", "86.9 ± 0.6", "93.3 ± 0.8"),
    ]
    # 50 % in the columns of pixels, 25 % in those of images: the paper's protocol is compared with the paper.
    assert difference[1:] == ["difference", "paper", "", "-46.0", "+11.5", "+19.1", "-40.0", "-66.2", "-61.9", "-68.3"]


def test_a_seed_that_lacks_a_category_is_left_out(runs):
    rows = make_rows(runs, lambda run: 0.4 + 0.2 * run.seed)
    whole = [row for row in rows if (row["seed"], row["category"]) != ("0", "c3")]
    lines = list(comparison_rows(group_rows(whole, runs)))
    assert lines[0][3:5] == ["1", "60.0"]
    without_any = [row for row in rows if row["category"] != "c3"]
    assert list(comparison_rows(group_rows(without_any, runs))) == []
    of_c0 = [line for line in category_rows(group_rows(without_any, runs)) if line[0] == "c0"]
    assert of_c0[0] == ["c0", "1-shot", "AprilGAN", "streaming", "2", *["50.0 ± 14.1"] * 7]


def test_protocols_that_cannot_differ_are_one_line(runs):
    """Published figures are still compared with."""
    zero_shot = [replace(run, shots=0) for run in runs if run.seed == 0]
    groups = group_rows(make_rows(zero_shot, paper=0.5), zero_shot)
    protocols = [line[1:3] for line in comparison_rows(groups)]
    assert protocols == [
        ["AprilGAN", "streaming"],
        ["APRIL-GAN, as published", "paper"],
        ["difference", "paper"],
    ]
    assert {line[3] for line in category_rows(groups)} == {"streaming"}


def test_part_of_the_categories_is_not_the_papers_setting(runs):
    some = [run for run in runs if run.category in {"c0", "c1"}]
    assert len(list(comparison_rows(group_rows(make_rows(some), some)))) == 2


@pytest.mark.parametrize("limit", ["max_train_images", "max_test_images"])
def test_part_of_the_images_is_not_the_papers_setting(limit, runs):
    some = [replace(run, dataset=replace(run.dataset, **{limit: 10})) for run in runs]
    assert len(list(comparison_rows(group_rows(make_rows(some), some)))) == 2


def test_images_without_masks_have_metrics_of_images_only(runs):
    rows = [{**row, **dict.fromkeys(set(COLUMNS) - set(IMAGE_COLUMNS), "")} for row in make_rows(runs)]
    assert next(iter(comparison_rows(group_rows(rows, runs))))[4:] == [*["-"] * 4, *["50.0 ± 0.0"] * 3]


def test_costs_are_medians_and_the_largest_memory(runs):
    rows = make_rows(runs)
    for number, row in enumerate(rows):
        row.update(
            seconds_to_prepare=str(number), ms_median_batch_1="8", peak_host_mib=str(100 + number), peak_device_mib="0"
        )
    (line,) = cost_rows(group_rows(rows, runs))
    assert line == ["VisA", "1-shot", "AprilGAN", "56x56", "11.5", "8.0", "-", "-", "-", "123", "0"]


def test_test_images_are_counted_once_a_category(runs):
    rows = make_rows(runs)[::-1]  # in another order than planned
    for row in rows:
        row["test_images"] = "9" if row["category"] == "c0" else "5"
    lines = list(image_rows(group_rows([row for row in rows if row["category"] != "c1"], runs)))
    assert lines[:2] == [["VisA", "c0", "7", "2"], ["VisA", "c2", "3", "2"]]
    assert len(lines) == 11
    folder = Dataset("Folder", {"name": "cap", "normal_dir": "good"})
    whole = list_runs({"AprilGAN": METHOD}, {"cap": folder}, [], [0])
    assert list(image_rows(group_rows(make_rows(whole), whole))) == [["cap", "-", "3", "2"]]


class TestPublished:
    def test_figures_are_those_of_the_shared_table(self):
        assert published_figure("mvtec", "zero-shot", "APRIL-GAN", "PRO-segm") == (44.0, None)
        assert published_figure("mvtec", "1-shot", "WinCLIP", "AP-segm") is None
        assert published_figure("mvtec", "full", "PatchCore", "AUROC-cls") is None

    def test_anomalyclips_come_from_its_authors_logs(self):
        columns = ("AUROC-segm", "PRO-segm", "AUROC-cls", "AP-cls")
        for dataset, expected in (("mvtec", [91.1, 81.4, 91.6, 96.4]), ("visa", [95.5, 86.7, 82.0, 85.3])):
            found = [published_figure(dataset, "zero-shot", "AnomalyCLIP", column) for column in columns]
            assert found == [(value, None) for value in expected]

    def test_one_run_is_not_told_as_five(self):
        categories = [f"c{number}" for number in range(CATEGORIES["mvtec"])]
        dataset = Dataset("MVTecAD", categories=categories, published_as="mvtec")
        method = Method("AnomalyCLIP", shots=[0], published_as="AnomalyCLIP")
        runs = list_runs({"AnomalyCLIP": method}, {"MVTec AD": dataset}, [], [0])
        *_, printed, difference = comparison_rows(group_rows(make_rows(runs), runs))
        assert printed[:4] == ["zero-shot", "AnomalyCLIP, as published", "paper", "1"]
        assert printed[4:] == ["91.1", "-", "-", "81.4", "91.6", "-", "96.4"]
        assert difference[5:7] == ["-", "-"]

    def test_unknown_names_are_refused(self):
        check_published_names("visa", "PaDiM")
        check_published_names(None, None)
        with pytest.raises(
            ValueError, match=r"published_as='VisA' is not among the published figures\. Choose of mvtec, visa"
        ):
            check_published_names("VisA", None)


class TestReport:
    def test_without_any_row_it_tells_so(self, runs, tmp_path):
        write_report(tmp_path, [], runs, {"AprilGAN": "ValueError: no"})
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert "Runs done: 0 of 24." in text
        assert "Failed: AprilGAN: ValueError: no" in text
        assert not (tmp_path / "latency.png").exists()
        assert (tmp_path / "comparison.md").read_text(encoding="utf-8") == "\n"

    def test_datasets_without_masks_leave_their_panel_empty(self, runs, tmp_path):
        missing = dict.fromkeys(set(COLUMNS) - set(IMAGE_COLUMNS), "")
        rows = [{**row, **missing, "ms_median_batch_1": "8"} for row in make_rows(runs)]
        write_report(tmp_path, rows, runs, {})
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert text.count("VisA: no metrics of pixels, since not all images have masks.") == 1
        assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
        write_report(tmp_path, [*rows[1:], {**make_rows(runs[:1])[0], "method": "Other"}], runs, {})
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert text.count("AprilGAN on VisA: no metrics of pixels, since the model gives no maps.") == 1

    def test_leaks_trained_parts_and_remarks_are_told_once(self, runs, tmp_path):
        parts = {"adapters": "visa", "prompt_weights": "mvtec", "trained_on": "visa"}
        more = {**parts, "trained_on_test_data": "True", "remarks": "odd"}
        write_report(tmp_path, [{**row, **more} for row in make_rows(runs)], runs, {})
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert text.count("AprilGAN on VisA: adapters visa.") == 1
        assert text.count("AprilGAN on VisA: learned prompts mvtec.") == 1
        assert text.count("AprilGAN on VisA: parts were trained on the data under test.") == 1
        assert text.count("AprilGAN on VisA: odd.") == 1

    def test_unsteady_times_are_told_with_the_worst(self, runs):
        rows = make_rows(runs)
        assert unsteady_times(group_rows(rows, runs)) == []
        for batch_8, remarks in ((15, 0), (17, 1)):
            for row in rows:
                row.update(
                    ms_median_batch_1="8", ms_p95_batch_1="8", ms_median_batch_8="10", ms_p95_batch_8=str(batch_8)
                )
            assert len(unsteady_times(group_rows(rows, runs))) == remarks
        (remark,) = unsteady_times(group_rows(rows, runs))
        told = "of more than 1.5 times the median: 1 of 1, at most 1.7 times (AprilGAN, 1-shot, on VisA)."
        assert told in remark

    def test_signs_are_written_as_each_format_has_them(self):
        parts = ["50 % & more", Table("a_b", ["x|y"], [["<1 ± 2>"]])]
        assert as_markdown("T", parts) == "# T\n\n50 % & more\n\n## a_b\n\n| x/y |\n| --- |\n| <1 ± 2> |\n\n"
        latex = as_latex("T", parts)
        assert r"50 \% \& more" in latex
        assert r"<1 $\pm$ 2> \\" in latex
        assert r"\caption{a\_b}" in latex
        assert latex.startswith("% \\usepackage{booktabs,graphicx,longtable}\n")
        page = as_html("T", parts)
        assert "<p>50 % &amp; more</p>" in page
        assert "<td>&lt;1 ± 2&gt;</td>" in page

    def test_long_tables_go_over_pages(self):
        latex = as_latex("T", [Table("t", ["x"], [["1"]] * 41)])
        assert latex.count("1 \\\\\n") == 41
        assert r"\begin{longtable}{l}\caption{t} \\" in latex
        assert r"\endhead" in latex
        assert r"\begin{table}" not in latex


def test_deviation_of_one_seed_is_not_made_up(runs):
    one = [run for run in runs if run.seed == 0]
    line = next(iter(comparison_rows(group_rows(make_rows(one), one))))
    assert line[4:] == ["50.0"] * 7
    assert not np.isnan(float(line[4]))
