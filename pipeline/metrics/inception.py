"""The Inception-v3 network of FID (Szegedy et al., 2015), as an image encoder, from a weights file the user has.

Modules are named as in pytorch-fid's conversion of the TensorFlow graph of 2015-12-05, so its state dictionary loads.
Where that graph is unlike the usual Inception-v3: average pools leave the padding out, the last block's pool is a
maximum, and the head has 1008 classes. Images are scaled to 299 px (bilinear, no smoothing) and to -1..1. Features are
pool3's 2048 numbers, so a Frechet distance needs more than 2048 images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

from pipeline.learning.checkpoint import fill
from pipeline.metrics.encoder2d import check_images
from pipeline.scene.errors import InputError
from pipeline.scene.files import sha256_file

CLASSES, FEATURES, INPUT_PX = 1008, 2048, 299
Size = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution without bias, batch norm, rectifier."""

    def __init__(self, channels_in: int, channels_out: int, size: Size, stride: int = 1, padding: Size = 0):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


def _same(channels_in: int, channels_out: int, height: int, width: int) -> Convolution:
    return Convolution(channels_in, channels_out, (height, width), padding=(height // 2, width // 2))


def _average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: 1x1, 5x5, twice 3x3, pool -> 224 + `pooled` channels."""

    def __init__(self, channels: int, pooled: int):
        super().__init__()
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Convolution(channels, 48, 1), _same(48, 64, 5, 5)
        self.branch3x3dbl_1 = Convolution(channels, 64, 1)
        self.branch3x3dbl_2, self.branch3x3dbl_3 = _same(64, 96, 3, 3), _same(96, 96, 3, 3)
        self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_average(x))], 1
        )


class BlockB(nn.Module):
    """35 x 35 -> 17 x 17, 768 channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch3x3 = Convolution(channels, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 64, 1), _same(64, 96, 3, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """17 x 17: 1x1, 7x7, twice 7x7 in rows and columns, pool -> 768 channels."""

    def __init__(self, inner: int, channels: int = 768):
        super().__init__()
        self.branch1x1 = Convolution(channels, 192, 1)
        self.branch7x7_1 = Convolution(channels, inner, 1)
        self.branch7x7_2, self.branch7x7_3 = _same(inner, inner, 1, 7), _same(inner, 192, 7, 1)
        self.branch7x7dbl_1 = Convolution(channels, inner, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = _same(inner, inner, 7, 1), _same(inner, inner, 1, 7)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = _same(inner, inner, 7, 1), _same(inner, 192, 1, 7)
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """17 x 17 -> 8 x 8, 1280 channels."""

    def __init__(self, channels: int = 768):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Convolution(channels, 192, 1), Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(channels, 192, 1)
        self.branch7x7x3_2, self.branch7x7x3_3 = _same(192, 192, 1, 7), _same(192, 192, 7, 1)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), wide, max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """8 x 8: 1x1, 3x3 in rows and columns, the same after another 3x3, pool -> 2048 channels."""

    def __init__(self, channels: int, maximum: bool):
        super().__init__()
        self.maximum = maximum  # of the pool's branch, as in the graph's last block
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _same(384, 384, 1, 3), _same(384, 384, 3, 1)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 448, 1), _same(448, 384, 3, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _same(384, 384, 1, 3), _same(384, 384, 3, 1)
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        crosses = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        crosses += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _average(x)
        return torch.cat([self.branch1x1(x), *crosses, self.branch_pool(pooled)], 1)


class InceptionV3(nn.Module):
    """Images (B, 3, 299, 299) in -1..1 -> pool3 (B, 2048). `fc` is the class head."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Convolution(32, 32, 3), _same(32, 64, 3, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Convolution(64, 80, 1), Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (BlockC(n) for n in (128, 160, 160, 192))
        self.Mixed_7a = BlockD()
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, maximum=False), BlockE(FEATURES, maximum=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # B 64 147 147
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, stride=2)))  # B 192 71 71
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, stride=2))))  # B 288 35 35
        x = self.Mixed_6a(x)  # B 768 17 17
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


class InceptionEncoder:
    """InceptionV3 with weights from `path`: .safetensors, or a state dictionary saved by torch (tensors only).

    Raises InputError.
    """

    name, dimension = "inception-v3-fid-pool3", FEATURES

    def __init__(self, path: Path):
        self.digest = sha256_file(path) if Path(path).is_file() else ""
        self._network = InceptionV3().eval()
        state = _read_state(Path(path))
        counters = {n: t for n, t in self._network.state_dict().items() if n.endswith("num_batches_tracked")}
        fill(self._network, {**counters, **state}, path)  # older files lack the counters, which encoding doesn't need

    def features(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 2048"]:
        """A row an image, float64. Raises InputError."""
        check_images(images, 1)
        return np.reshape([self._pool3(image) for image in images], (len(images), FEATURES)).astype(np.float64)

    def probabilities(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 1008"]:
        """Of the head's classes, without its bias, as the inception score was published. Raises InputError."""
        pool3 = torch.from_numpy(self.features(images))
        return torch.softmax(pool3 @ self._network.fc.weight.detach().double().T, 1).numpy()

    @torch.no_grad()
    def _pool3(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "2048"]:
        x = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)[None].float() / 255
        x = interpolate(x, (INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False)
        return self._network(2 * x - 1)[0].numpy()


def _read_state(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(path, "Inception-v3 weights", "no such file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # both answer a damaged file with whatever their parsers stumble over
        raise InputError(path, "a state dictionary of tensors", str(error)[:120]) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(path, "a state dictionary of tensors", "something else")
    return state
