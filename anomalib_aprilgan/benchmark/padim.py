# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's PaDiM, made fit for a single reference."""

from anomalib.models import Padim


class BenchmarkPadim(Padim):
    """Anomalib's Padim, which takes a single reference twice.

    Anomalib divides the covariance by the number of references minus one, so that every score of one reference is NaN.
    Taken twice, it has no covariance, and anomalib's regularisation is all that remains: the distance to its features.

    Attributes:
        remarks (str): What readers of results must know.
    """

    remarks = ""

    def fit(self) -> None:
        """Fit the Gaussians."""
        embeddings = self.model.memory_bank
        if sum(len(batch) for batch in embeddings) == 1:
            self.model.memory_bank = [*embeddings, *embeddings]
            self.remarks = "with 1 reference PaDiM's covariance is nothing but its regularisation"
        super().fit()
