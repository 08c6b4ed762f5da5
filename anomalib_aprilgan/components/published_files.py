# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Files that authors published: from the web or a mirror, verified, in the package's cache."""

import os
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir
from .download import download, is_intact
from .offline import REMEDY, forbidden_by


class PublishedFileNotFoundError(FileNotFoundError):
    """A published file is neither on this machine nor to be had; the message says where it may be put."""


@dataclass(frozen=True)
class PublishedFile:
    """A file of the authors.

    Attributes:
        title (str): What it is, such as "Prompts 'visa'".
        argument (str): How a path is given to the model instead, such as "adapters=PATH".
        folder (str): Address of the folder that holds it, with ``path`` in it.
        path (str): Where it lies in that folder, and in a mirror of it.
        cached_as (str): Where it lies in the cache.
        blob (str): Its git blob hash.
        mirror_variable (str): Environment variable for the address of a mirror.
    """

    title: str
    argument: str
    folder: str
    path: str
    cached_as: str
    blob: str
    mirror_variable: str

    @property
    def target(self) -> Path:
        """Where the file lies in the cache, if it does."""
        return cache_dir() / self.cached_as

    def find(self) -> Path | None:
        """The file in the cache if it is there and intact; never uses the network."""
        return self.target if is_intact(self.target, self.blob) else None

    def fetch(self) -> Path:
        """The file on this machine, downloaded if need be.

        Returns:
            Path: In the cache; where that cannot be written, a temporary file that ends with this process.

        Raises:
            PublishedFileNotFoundError: If the network is forbidden, out of reach or without the file.
        """
        if path := self.find():
            return path
        if variable := forbidden_by():
            raise PublishedFileNotFoundError(self._explain(f"{variable} forbids the network"))
        folder = os.environ.get(self.mirror_variable, "").strip() or self.folder
        try:
            return download(f"{folder.rstrip('/')}/{self.path}", self.target, self.blob)
        except OSError as error:  # no network, a refusal, another file, a full disk
            raise PublishedFileNotFoundError(self._explain(str(error))) from error

    def _explain(self, reason: str) -> str:
        return (
            f"{self.title} ({self.path}, git blob {self.blob}) are not intact on this machine and cannot be "
            f"downloaded: {reason}. Do one of these: copy the file from {self.folder}/{self.path} to {self.target}, "
            f"or to any place and pass {self.argument}; name the folder of a mirror in {self.mirror_variable}; "
            f"or {REMEDY}"
        )
