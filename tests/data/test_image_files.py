# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Image files of all kinds are read with the right brightness, and bad ones are named."""

import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.data.utils import read_image as read_with_anomalib
from PIL import Image

from anomalib_aprilgan.data.image_files import (
    UnreadableImageError,
    find_unreadable,
    has_alpha,
    needs_own_reader,
    read_image,
    read_squashed,
)
from anomalib_aprilgan.data.image_guard import ImageFileGuard, squash_transparent, unclipped_images, were_scaled
from anomalib_aprilgan.data.pillow_resize import resize_image

DEEP = np.array([[0, 256], [32768, 65535]], dtype=np.uint16)
RED_AND_BLUE = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
# Per suffix: mode of a file that anomalib reads well.
SHALLOW = {
    "L": ".png",
    "LA": ".png",
    "RGB": ".png",
    "RGBA": ".png",
    "P": ".png",
    "1": ".png",
    "CMYK": ".jpg",
    "YCbCr": ".jpg",
}


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def write_deep_png(path: Path, colour_type: int, channels: list[int]) -> Path:
    """A PNG of one pixel with 16 bits a channel, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(f">{len(channels)}H", *channels))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b""))
    return path


def write_broken(folder: Path) -> dict[str, Path]:
    """Files that cannot be decoded: truncated, empty, no image, absent."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = save(folder / "whole.png", noise).read_bytes()
    broken = {kind: folder / f"{kind}.png" for kind in ("truncated", "empty", "text", "missing")}
    broken["truncated"].write_bytes(content[: len(content) // 2])
    broken["empty"].touch()
    broken["text"].write_text("no image")
    return broken


class TestReading:
    @pytest.mark.parametrize(("mode", "suffix"), SHALLOW.items())
    def test_files_of_8_bits_are_read_as_anomalib_reads_them(self, tmp_path, mode, suffix):
        path = save(tmp_path / f"image{suffix}", RED_AND_BLUE, mode)
        image = read_image(path)
        assert image.shape == (3, 1, 2)
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, torch.as_tensor(read_with_anomalib(path, as_tensor=True)))

    @pytest.mark.parametrize(("mode", "suffix"), SHALLOW.items())
    def test_squashing_in_8_bits_is_squashing_what_was_read(self, tmp_path, mode, suffix):
        noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)  # more rows than one block has
        path = save(tmp_path / f"image{suffix}", noise, mode)
        expected = resize_image(read_image(path), (31, 40))
        assert expected.std() > 0.01
        assert torch.equal(read_squashed(path, (31, 40)), expected)

    @pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
    def test_16_bits_are_scaled_and_not_clipped(self, tmp_path, suffix):
        path = save(tmp_path / f"image{suffix}", DEEP)
        expected = torch.tensor([[0.0, 256.0], [32768.0, 65535.0]]) / 65535
        torch.testing.assert_close(read_image(str(path)), expected.expand(3, -1, -1))
        assert read_with_anomalib(path).max() == read_with_anomalib(path)[0, 1].max() == 1  # the reason for all this

    def test_16_bits_of_either_byte_order_are_the_same(self, tmp_path):
        little, big = (save(tmp_path / f"{order}.tiff", DEEP.astype(f"{order}u2")) for order in "<>")
        assert little.read_bytes() != big.read_bytes()
        assert torch.equal(read_image(little), read_image(big))

    @pytest.mark.parametrize(
        ("colour_type", "channels", "expected"),
        [
            (2, [0xFFFF, 0x8000, 0x0100], [255, 128, 1]),
            (4, [0x8000, 0xFFFF], [128] * 3),
            (6, [0x8000, 0, 0, 9], [128, 0, 0]),
        ],
        ids=["RGB", "LA", "RGBA"],
    )
    def test_16_bits_in_several_channels_are_scaled_by_pillow_itself(self, tmp_path, colour_type, channels, expected):
        path = write_deep_png(tmp_path / "image.png", colour_type, channels)
        assert not needs_own_reader(path)
        torch.testing.assert_close(read_image(path).flatten() * 255, torch.tensor(expected).float())

    @pytest.mark.parametrize(
        ("highest", "bits", "factor"), [(255, 8, 64), (4095, 12, 16), (16383, 14, 4), (32767, 15, 2), (32768, 16, 0)]
    )
    def test_values_of_fewer_bits_are_told_once_a_folder(self, tmp_path, caplog, highest, bits, factor):
        for name in ("a.png", "b.png"):
            image = read_image(save(tmp_path / name, np.array([[0, highest]], dtype=np.uint16)))
            assert image.max().item() == pytest.approx(highest / 65535)
        if factor:
            [told] = caplog.messages
            assert f"the values of a.png, the first, need {bits} bits only" in told
            assert f"multiply its values by {factor} and" in told
        else:
            assert not caplog.messages

    def test_32_bits_with_the_values_of_16_are_taken(self, tmp_path):
        path = save(tmp_path / "image.tiff", DEEP.astype(np.int32))
        assert torch.equal(read_image(path), read_image(save(tmp_path / "deep.tiff", DEEP)))

    @pytest.mark.parametrize(("lowest", "highest"), [(0, 65536), (-1, 255)])
    def test_32_bits_beyond_16_are_refused(self, tmp_path, lowest, highest):
        path = save(tmp_path / "image.tiff", np.array([[lowest, highest]], dtype=np.int32))
        with pytest.raises(
            ValueError, match=rf"image.tiff holds values from {lowest} to {highest}, outside of 16 bits"
        ):
            read_image(path)

    def test_floating_point_numbers_are_refused(self, tmp_path):
        path = save(tmp_path / "image.tiff", np.array([[0.0, 0.5]], dtype=np.float32))
        with pytest.raises(ValueError, match=r"image.tiff holds floating point numbers of unknown range"):
            read_image(path)

    @pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing"])
    def test_file_that_cannot_be_decoded_is_named(self, tmp_path, kind):
        path = write_broken(tmp_path)[kind]
        with pytest.raises(
            UnreadableImageError, match=rf"{kind}.png cannot be read as an image: .*Replace or remove it"
        ):
            read_image(path)


class TestOwnReader:
    @pytest.mark.parametrize(("mode", "suffix"), SHALLOW.items())
    def test_files_of_8_bits_do_not_need_it(self, tmp_path, mode, suffix):
        assert not needs_own_reader(save(tmp_path / f"image{suffix}", RED_AND_BLUE, mode))

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_files_of_more_bits_need_it(self, tmp_path, dtype):
        assert needs_own_reader(str(save(tmp_path / "image.TIFF", DEEP.astype(dtype))))

    @pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing"])
    def test_files_that_cannot_be_read_are_left_to_whom_it_concerns(self, tmp_path, kind):
        assert not needs_own_reader(write_broken(tmp_path)[kind])

    @pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".bmp", ".webp", ".gif"])
    def test_formats_of_8_bits_are_not_even_opened(self, tmp_path, monkeypatch, suffix):
        monkeypatch.setattr(Image, "open", lambda _: pytest.fail("opened"))
        assert not needs_own_reader(tmp_path / f"image{suffix}")


class TestTransparentImages:
    """A clear blue pixel beside an opaque red one: it gives nothing to a pixel that both become."""

    @pytest.fixture
    def path(self, tmp_path):
        return save(tmp_path / "a.png", np.array([[[255, 0, 0, 255], [0, 0, 255, 0]]], dtype=np.uint8))

    def test_clear_pixels_do_not_count(self, path):
        assert (read_squashed(path, (1, 1)) * 255).flatten().tolist() == [255, 0, 0]

    def test_without_alpha_they_would(self, path, tmp_path):
        plain = save(tmp_path / "b.png", np.array(Image.open(path).convert("RGB")))
        assert torch.equal(read_squashed(plain, (1, 1)), resize_image(read_image(plain), (1, 1)))
        assert (read_squashed(plain, (1, 1)) * 255).flatten().tolist() == [128, 0, 128]

    def test_files_are_told_by_their_mode(self, path, tmp_path):
        assert has_alpha(path)
        assert has_alpha(save(tmp_path / "la.png", np.zeros((2, 2, 2), np.uint8)))
        assert not has_alpha(save(tmp_path / "b.png", RED_AND_BLUE))
        assert not has_alpha(tmp_path / "gone.png")

    @pytest.mark.parametrize("kind", ["truncated", "empty", "missing"])
    def test_file_that_cannot_be_decoded_is_named(self, tmp_path, kind):
        with pytest.raises(UnreadableImageError, match=rf"{kind}.png cannot be read as an image"):
            read_squashed(write_broken(tmp_path)[kind], (2, 2))

    def test_broken_one_is_named(self, tmp_path):
        whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (40, 40, 4)).astype(np.uint8))
        (tmp_path / "b.png").write_bytes(whole.read_bytes()[:2000])
        with pytest.raises(UnreadableImageError, match=r"b.png cannot be read as an image"):
            read_squashed(tmp_path / "b.png", (2, 2))

    @pytest.mark.parametrize("is_squashed", [True, False], ids=["by the datamodule", "not yet"])
    def test_batch_is_squashed_with_them(self, path, is_squashed):
        size = (1, 1)
        as_read = torch.stack([read_image(path), torch.zeros(3, 1, 2)])
        batch = resize_image(as_read, size) if is_squashed else as_read
        squashed = squash_transparent(batch, [str(path), "gone.png"], size)
        assert (squashed * 255).flatten().tolist() == [255, 0, 0, 0, 0, 0]

    def test_images_that_were_changed_since_stay(self, path):
        changed = read_image(path)[None].flip(-1)
        cropped = read_image(path)[None, :, :, :1]
        assert squash_transparent(changed, [str(path)], (4, 4)) is changed
        assert squash_transparent(cropped, [str(path)], (4, 4)) is cropped

    @pytest.mark.parametrize("squashes", [True, False])
    def test_guard_leaves_them_to_another_pre_processor(self, path, squashes):
        batch = ImageBatch(image=read_image(path)[None], image_path=[str(path)])
        ImageFileGuard(1, squashes=squashes).on_test_batch_start(None, None, batch, 0)
        assert tuple(batch.image.shape) == ((1, 3, 1, 1) if squashes else (1, 3, 1, 2))


class TestBatches:
    def test_batch_that_is_as_in_its_files_is_the_same_tensor(self, tmp_path):
        images = torch.rand(2, 3, 1, 2)
        paths = [str(save(tmp_path / "a.png", RED_AND_BLUE)), str(tmp_path / "gone.png")]
        assert unclipped_images(images, paths) is images
        assert unclipped_images(images, []) is images

    def test_deep_files_are_replaced_and_others_kept(self, tmp_path):
        shallow, deep = save(tmp_path / "a.png", RED_AND_BLUE), save(tmp_path / "b.png", DEEP)
        images = torch.ones(3, 3, 2, 2)
        replaced = unclipped_images(images, [str(shallow), str(deep), str(shallow)])
        torch.testing.assert_close(replaced[1], read_image(deep), rtol=0, atol=0.5 / 255)
        assert torch.equal(replaced[[0, 2]], images[[0, 2]])
        assert torch.equal(images, torch.ones(3, 3, 2, 2))

    def test_deep_files_are_brought_to_the_size_of_the_batch(self, tmp_path):
        path = save(tmp_path / "a.png", np.full((4, 6), 16384, dtype=np.uint16))
        (replaced,) = unclipped_images(torch.ones(1, 3, 5, 5), [str(path)])
        torch.testing.assert_close(replaced, torch.full((3, 5, 5), 64 / 255))

    def test_files_of_several_sizes_were_scaled_unless_they_have_the_models(self, tmp_path):
        paths = [str(save(tmp_path / f"{size}.png", np.zeros((size, size), dtype=np.uint8))) for size in (4, 6)]
        batch = torch.ones(2, 3, 6, 6)
        assert were_scaled(batch, paths, (5, 5))
        assert not were_scaled(batch, paths, (6, 6))
        assert not were_scaled(batch, [paths[1]] * 2, (5, 5))
        assert not were_scaled(batch, [], (5, 5))

    @pytest.mark.parametrize("squashes", [True, False])
    def test_scaled_images_are_read_anew_if_the_pre_processor_squashes(self, tmp_path, squashes):
        paths = [str(save(tmp_path / f"{size}.png", np.full((size, size), size, dtype=np.uint8))) for size in (4, 6)]
        batch = ImageBatch(image=torch.ones(2, 3, 6, 6), image_path=paths)
        module = SimpleNamespace(device="cpu")
        ImageFileGuard(5, squashes=squashes).on_predict_batch_start(None, module, batch, 0)
        expected = torch.stack([resize_image(read_image(path), (5, 5)) for path in paths])
        assert torch.equal(batch.image.as_subclass(torch.Tensor), expected if squashes else torch.ones(2, 3, 6, 6))

    @pytest.mark.parametrize("stage", ["validation", "test", "predict"])
    def test_guard_replaces_them_before_every_step(self, tmp_path, stage):
        path = save(tmp_path / "a.png", DEEP)
        batch = ImageBatch(image=torch.ones(1, 3, 2, 2), image_path=[str(path)])
        getattr(ImageFileGuard(2, squashes=True), f"on_{stage}_batch_start")(None, None, batch, 0)
        expected = resize_image(read_image(path)[None], (2, 2))
        assert torch.equal(batch.image.as_subclass(torch.Tensor), expected)


class TestFailedRuns:
    def trainer(self, **datasets: object) -> SimpleNamespace:
        loaders = {f"{stage}_dataloaders": None for stage in ("val", "test", "predict")}
        for stage, dataset in datasets.items():
            loaders[f"{stage}_dataloaders"] = SimpleNamespace(dataset=dataset)
        return SimpleNamespace(**loaders)

    def dataset(self, *paths: Path) -> SimpleNamespace:
        return SimpleNamespace(samples=pd.DataFrame({"image_path": [str(path) for path in paths]}))

    @pytest.mark.parametrize("error", [OSError("image file is truncated"), SyntaxError("broken PNG file")])
    @pytest.mark.parametrize("stage", ["val", "test", "predict"])
    def test_error_names_the_files_that_cannot_be_read(self, tmp_path, error, stage):
        broken = write_broken(tmp_path)
        trainer = self.trainer(**{stage: self.dataset(tmp_path / "whole.png", broken["truncated"], broken["empty"])})
        expected = r"cannot be read; replace or remove them: \S*truncated.png, \S*empty.png\.$"
        with pytest.raises(UnreadableImageError, match=expected) as raised:
            ImageFileGuard(2, squashes=True).on_exception(trainer, None, error)
        assert raised.value.__cause__ is error

    def test_folder_that_is_predicted_is_looked_through(self, tmp_path):
        dataset = SimpleNamespace(image_filenames=[tmp_path / "whole.png", write_broken(tmp_path)["empty"]])
        trainer = self.trainer(predict=dataset)
        trainer.predict_dataloaders = [trainer.predict_dataloaders]
        with pytest.raises(UnreadableImageError, match=r"remove them: \S*empty.png\.$"):
            ImageFileGuard(2, squashes=True).on_exception(trainer, None, OSError())

    @pytest.mark.parametrize("error", [ValueError("other"), KeyboardInterrupt(), UnreadableImageError("known")])
    def test_other_errors_pass(self, tmp_path, error):
        trainer = self.trainer(test=self.dataset(write_broken(tmp_path)["empty"]))
        ImageFileGuard(2, squashes=True).on_exception(trainer, None, error)

    def test_error_passes_where_all_files_can_be_read(self, tmp_path):
        write_broken(tmp_path)
        trainer = self.trainer(test=self.dataset(tmp_path / "whole.png"), predict=object())
        ImageFileGuard(2, squashes=True).on_exception(trainer, None, OSError("disk full"))

    def test_ten_files_are_named_at_most(self, tmp_path):
        paths = [tmp_path / f"{number}.png" for number in range(12)]
        assert find_unreadable(paths) == [str(path) for path in paths[:10]]
