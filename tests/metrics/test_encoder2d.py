import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.metrics.distances import frechet_distance, inception_score
from pipeline.metrics.encoder2d import RandomConvolutions
from pipeline.metrics.inception import BlockA, BlockE, InceptionEncoder, InceptionV3, _average
from pipeline.scene.errors import InputError


def blocks(n, seed, noise=0.0):
    """Images of random coloured rectangles, with noise [share of full scale]."""
    rng = np.random.default_rng(seed)
    images = np.full((n, 48, 56, 3), 90.0)
    for image in images:
        for _ in range(6):
            top, left, high, wide = rng.integers(0, [40, 48, 30, 30])
            image[top : top + high, left : left + wide] = rng.integers(0, 256, 3)
    images += 255 * noise * rng.normal(size=images.shape)
    return images.clip(0, 255).astype(np.uint8)


def test_random_convolutions_are_the_same_every_time() -> None:
    first, again, images = RandomConvolutions(), RandomConvolutions(), blocks(3, 0)
    assert first.digest == again.digest != RandomConvolutions(20).digest
    assert np.array_equal(first.features(images), again.features(images))
    assert first.features(images).shape == (3, first.dimension) == (3, 48)
    assert first.features(images).dtype == np.float64
    assert first.probabilities(images) is None
    assert first.features(images)[:, :20] == pytest.approx(RandomConvolutions(20).features(images))


def test_random_features_depend_on_their_image_alone() -> None:
    encoder, images = RandomConvolutions(), blocks(4, 1)
    assert np.array_equal(encoder.features(images)[::-1], encoder.features(images[::-1].copy()))
    assert np.array_equal(encoder.features(images)[2:3], encoder.features(images[2:3]))
    assert encoder.features(images[:0]).shape == (0, 48)


def test_random_responses_by_their_definition() -> None:
    encoder, image = RandomConvolutions(), blocks(1, 2)[0]
    x = image.transpose(2, 0, 1) / 127.5 - 1
    expected = []
    for filters in encoder._filters:
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        maps = np.einsum("chwij,fcij->fhw", windows, filters.numpy()).clip(0)
        expected += [maps.mean((1, 2)), maps.std((1, 2))]
        c, h, w = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))
    assert encoder._responses(image) == pytest.approx(np.concatenate(expected), abs=1e-5)


def test_filters_have_unit_norm_and_most_ignore_a_flat_colour() -> None:
    encoder = RandomConvolutions()
    for filters in encoder._filters:
        assert filters.square().sum((1, 2, 3)).numpy() == pytest.approx(np.ones(24), abs=1e-5)
        assert filters[6:].sum((1, 2, 3)).numpy() == pytest.approx(np.zeros(18), abs=1e-4)
    grey = encoder._responses(np.full((48, 48, 3), 200, np.uint8)).reshape(4, 2, 24)
    assert grey[:, 0, 6:] == pytest.approx(np.zeros((4, 18)), abs=1e-4)
    assert grey[:, 1] == pytest.approx(np.zeros((4, 24)), abs=1e-4)


def test_the_distance_rises_with_noise() -> None:
    encoder = RandomConvolutions(16)
    real = encoder.features(blocks(80, 3))
    found = [frechet_distance(real, encoder.features(blocks(80, 4, noise))) for noise in (0, 0.05, 0.1, 0.2)]
    assert found == sorted(found)
    assert found[3] > 3 * found[0]


def test_images_of_another_kind_are_refused() -> None:
    encoder = RandomConvolutions()
    for bad in (blocks(2, 0)[..., :2], blocks(2, 0)[0], blocks(2, 0)[:, :39], blocks(2, 0).astype(np.float32)):
        with pytest.raises(InputError, match="at least 40 px"):
            encoder.features(bad)
    with pytest.raises(InputError, match="1 to 192 features, found 193"):
        RandomConvolutions(193)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = InceptionV3().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # so that signals reach the end
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_inception_has_the_published_parameters_and_names(network) -> None:
    state = network.state_dict()
    head = sum(p.numel() for p in network.fc.parameters())
    assert head == 2049 * 1008
    assert sum(p.numel() for p in network.parameters()) - head == 21_785_568
    assert sum(name.endswith("conv.weight") for name in state) == 94
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch5x5_2.bn.running_var": (64,),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_inception_block_sizes(network) -> None:
    seen = {}
    names = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7a", "Mixed_7c")
    hooks = [
        getattr(network, name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.shape[1:]}))
        for name in names
    ]
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 299, 299)).shape == (1, 2048)
    for hook in hooks:
        hook.remove()
    sizes = [(64, 147, 147), (192, 71, 71), (288, 35, 35), (768, 17, 17), (1280, 8, 8), (2048, 8, 8)]
    assert [tuple(seen[name]) for name in names] == sizes


def test_average_pools_leave_padding_out_and_the_last_block_takes_the_maximum() -> None:
    assert torch.equal(_average(torch.ones(1, 2, 5, 5)), torch.ones(1, 2, 5, 5))
    x = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    for maximum in (False, True):
        block, pooled = BlockE(8, maximum).eval(), []
        block.branch_pool.register_forward_hook(lambda _m, inputs, _o, pooled=pooled: pooled.append(inputs[0]))
        with torch.no_grad():
            assert block(x).shape == (1, 2048, 6, 6)
        corner = x[..., :2, :2].amax((2, 3)) if maximum else x[..., :2, :2].mean((2, 3))
        assert torch.allclose(pooled[0][..., 0, 0], corner)
    with torch.no_grad():
        assert BlockA(8, 32).eval()(x).shape == (1, 256, 6, 6)


def test_inception_from_safetensors_and_from_a_state_dictionary(network, weights, tmp_path) -> None:
    old = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    images = blocks(2, 5)
    first, second = InceptionEncoder(weights), InceptionEncoder(tmp_path / "old.pth")
    found = first.features(images)
    assert found.shape == (2, 2048)
    assert found.dtype == np.float64
    assert np.array_equal(found[1:], second.features(images[1:]))
    assert found.std(0).max() > 0
    assert first.digest != second.digest
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        pool3 = network(torch.nn.functional.interpolate(x, (299, 299), mode="bilinear"))
        logits = pool3.double() @ network.fc.weight.double().T
    assert found == pytest.approx(pool3.numpy(), rel=1e-3, abs=1e-3 * float(pool3.abs().max()))
    probabilities = first.probabilities(images)
    assert np.log(probabilities) == pytest.approx(torch.log_softmax(logits, 1).numpy(), abs=0.05)
    assert 1 <= inception_score(probabilities, splits=1)[0] <= 2


def test_inception_weights_that_are_not_there_or_not_those(weights, tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        InceptionEncoder(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"x": print}, tmp_path / "code.pth")
    for name in ("text.pth", "text.safetensors", "list.pth", "code.pth"):
        with pytest.raises(InputError, match="a state dictionary of tensors"):
            InceptionEncoder(tmp_path / name)
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"weights named 'Conv2d_1a_3x3\.bn\.weight'"):
        InceptionEncoder(tmp_path / "part.safetensors")
