"""Images depend on their own seed; batches, schedulers, a stock pipeline, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.images.config import SynthesisConfig
from pipeline.images.synthesis import Request, Synthesizer, scene_requests
from pipeline.scene.errors import InputError
from tests.images.stock import stock_pipeline
from tests.images.toy_pairs import Boxes, tiny

CONFIG = SynthesisConfig(steps=3, guidance=2.0, batch_size=2, device="cpu")


def request(index: int = 0, seed: int = 7) -> Request:
    pair = Boxes()[index]
    return Request(pair["control"], pair["prompt"], "building", seed)


def drawn(requests, pipeline=None, **fields):
    config = CONFIG.model_copy(update=fields)
    return np.stack(list(Synthesizer(pipeline or tiny(), config).images(requests)))


def test_the_same_requests_give_the_same_bytes_whatever_torch_is_set_to() -> None:
    requests = [request(0), request(1, 8), request(2, 9)]  # the second batch is half full
    first = drawn(requests)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(99)
    try:
        assert np.array_equal(drawn(requests), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert first.shape == (3, 16, 32, 3)
    assert first.dtype == np.uint8


def test_an_image_is_a_function_of_its_seed_not_of_its_batch() -> None:
    requests = [request(0), request(1, 8), request(2, 9), request(3, 10)]
    together = drawn(requests, batch_size=4).astype(int)
    alone = drawn(requests, batch_size=1).astype(int)
    turned = drawn(requests[::-1], batch_size=4)[::-1].astype(int)
    assert np.abs(together - alone).max() <= 1  # sums in another order: at most a rounding step of 8 bits
    assert np.abs(together - turned).max() <= 1
    others = drawn([replace(each, seed=each.seed + 100) for each in requests], batch_size=4).astype(int)
    assert np.abs(together - others).mean() > 5


@pytest.mark.parametrize("scheduler", ["unipc", "dpm++", "ddim"])
def test_every_scheduler_draws_and_goes_on_from_the_pipelines_own_noise(scheduler) -> None:
    pipeline = tiny()
    betas = pipeline.scheduler.betas
    image = drawn([request()], pipeline, scheduler=scheduler)
    assert image.std() > 1
    assert torch.equal(pipeline.scheduler.betas, betas)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_guidance_and_negative_prompts_and_the_control_scale_matter() -> None:
    pipeline = tiny()
    with torch.no_grad():
        pipeline.controlnet.controlnet_mid_block.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    base = drawn([request()], pipeline, guidance=8.0)
    assert not np.array_equal(base, drawn([request()], pipeline, guidance=1.0))
    assert not np.array_equal(base, drawn([replace(request(), negative="")], pipeline, guidance=8.0))
    assert not np.array_equal(base, drawn([request()], pipeline, guidance=8.0, control_scale=0.0))


def test_temperature_scales_the_first_noise_and_nothing_else() -> None:
    firsts = []
    for temperature in (1.0, 0.25):
        pipeline = tiny()
        seen: list[torch.Tensor] = []
        pipeline.unet.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0]))
        drawn([request(0), request(1, 8)], pipeline, guidance=1.0, temperature=temperature)
        firsts.append(seen[0])
    torch.testing.assert_close(firsts[1], 0.25 * firsts[0])
    expected = torch.randn(firsts[0][0].shape, generator=torch.Generator().manual_seed(request().seed))
    torch.testing.assert_close(firsts[0][0], expected)


def test_half_precision_and_channels_last_stay_close() -> None:
    whole = drawn([request()]).astype(int)
    for fields in ({"precision": "bfloat16"}, {"channels_last": True}):
        assert np.abs(drawn([request()], **fields).astype(int) - whole).mean() < 4


def test_a_stock_pipeline_of_diffusers_own_classes_runs(tmp_path) -> None:
    control = np.random.default_rng(0).random((3, 32, 48), np.float32)
    requests = [Request(control, "a traffic scene with: car", "blurry", seed) for seed in (1, 2, 1)]
    images = drawn(requests, stock_pipeline(tmp_path))
    assert images.shape == (3, 32, 48, 3)
    assert np.abs(images[0].astype(int) - images[2].astype(int)).max() <= 1
    assert not np.array_equal(images[0], images[1])


def test_lcm_runs_where_weights_are_distilled_for_it_and_nowhere_else(tmp_path) -> None:
    from diffusers import LCMScheduler

    control = np.zeros((3, 32, 32), np.float32)
    stock = stock_pipeline(tmp_path)
    with pytest.raises(InputError, match="distilled"):
        Synthesizer(stock, CONFIG.model_copy(update={"scheduler": "lcm"}))
    stock.scheduler = LCMScheduler.from_config(stock.scheduler.config)
    requests = [Request(control, "car", "", 3)] * 2
    images = drawn(requests, stock, scheduler="lcm", guidance=1.0)
    assert np.array_equal(images[0], images[1])  # the noise between its steps is the request's own, too


def test_k_images_of_a_scene_have_prompts_and_noise_of_their_own() -> None:
    control = Boxes()[0]["control"]
    one, two = (
        scene_requests(
            lambda s: control * (s % 7), lambda s: (f"car {s}", ""), build_seed=4, sample=9, images=3, attempt=attempt
        )
        for attempt in (0, 1)
    )
    assert len({r.prompt for r in one}) == len({r.seed for r in one}) == 3
    assert [r.prompt for r in one] == [r.prompt for r in two]  # a redraw is of the same prompt
    assert not {r.seed for r in one} & {r.seed for r in two}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"control": np.zeros((3, 16, 32), np.float32)}, "5 channels"),
        ({"control": np.zeros((5, 16, 30), np.float32)}, "image width: expected a multiple of 4 px, found 30"),
        ({"control": np.full((5, 16, 32), 1.5, np.float32)}, "0..1"),
        ({"control": np.full((5, 16, 32), np.nan, np.float32)}, "0..1"),
        ({"prompt": "a traffic scene with: zebra"}, "'zebra'"),
        ({"negative": "car " * 80}, "at most 64 tokens"),
    ],
)
def test_bad_requests_fail_before_anything_is_drawn(change, words) -> None:
    synthesizer = Synthesizer(tiny(), CONFIG)
    synthesizer.pipeline.unet.forward = None  # would fail otherwise, if it came so far
    with pytest.raises(InputError, match=words.replace("(", r"\(")) as fault:
        synthesizer.images([request(), replace(request(1), **change)])
    assert "\n" not in str(fault.value)


def test_pipelines_that_are_none() -> None:
    pipeline = tiny()
    pipeline.controlnet = None
    with pytest.raises(InputError, match="StableDiffusionControlNetPipeline"):
        Synthesizer(pipeline, CONFIG)
