"""``inspect --layers``: the networks of a model, on the meta device, with what they are given."""

import diffusers
import pytest
import torch

import darkroom as dr
from cases import quick
from darkroom.errors import ConfigError
from darkroom.weights.inspect.layers import architectures, networks_called, networks_of
from weights import tiny


@pytest.fixture(scope="module")
def sd2(tmp_path_factory):
    return tiny.save(tiny.sd2(), tmp_path_factory.mktemp("sd2"))


def shapes(network) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in network.inputs]


def test_a_folder(sd2):
    found = {network.part: network for network in networks_of(sd2, batch=2)}
    model = dr.load(sd2, device="cpu")
    assert list(found) == [
        "text encoder",
        "U-Net",
        "autoencoder, encoding",
        "autoencoder, decoding",
    ]
    config = model.text_encoder.towers[0].model.config
    assert shapes(found["text encoder"]) == [(2, config.positions)]
    text = (2, config.positions, config.channels)
    assert shapes(found["U-Net"]) == [(2, 4, 8, 8), (2,), text]
    assert found["U-Net"].trace(0)[""].outputs[0].shape == (2, 4, 8, 8)
    count = sum(p.numel() for p in model.unet.parameters())
    assert found["U-Net"].trace(0)[""].parameters == count
    decoded = found["autoencoder, decoding"].trace(1)
    assert decoded[""].outputs[0].shape == (2, 3, 64, 64)
    for network in found.values():
        assert all(p.is_meta for p in network.model.parameters())


def test_a_size_that_is_asked_for(sd2):
    found = {network.part: network for network in networks_of(sd2, (96, 128))}
    assert shapes(found["U-Net"])[0] == (1, 4, 12, 16)
    assert shapes(found["autoencoder, encoding"]) == [(1, 3, 96, 128)]
    with pytest.raises(ConfigError, match="size 100x96: this model needs multiples of 8"):
        networks_of(sd2, (96, 100))


def test_a_single_file_that_does_not_say_what_it_predicts(sd2, tmp_path):
    path = tmp_path / "unknown.safetensors"
    dr.save(dr.load(sd2, device="cpu"), path)
    file, folder = networks_of(path), networks_of(sd2)
    assert [n.trace() for n in file] == [n.trace() for n in folder]


def test_one_network_alone(sd2):
    (unet,) = networks_of(sd2 / "unet")
    text = (1, 77, unet.model.config.text_channels)
    assert shapes(unet) == [(1, 4, 64, 64), (1,), text]  # of 512x512 pixels, without more
    encoding, decoding = networks_of(sd2 / "vae", (64, 64))
    assert (encoding.call, decoding.call) == ("encode", "decode")
    assert encoding.trace(0)[""].outputs[0].shape == shapes(decoding)[0] == (1, 4, 8, 8)


def test_a_diffusion_model_of_pixels_with_classes(tmp_path):
    unet = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=10,
    )
    unet.save_pretrained(tmp_path)
    (found,) = networks_of(tmp_path)
    assert [tuple(t.shape) for t in found.inputs] == [(1, 3, 16, 16), (1,), (1,)]
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    (found,) = networks_of(tmp_path)
    assert found.trace(0)[""].outputs[0].shape == (1, 3, 16, 16)


def test_a_network_with_buffers(tmp_path):
    """Batch normalisation counts in buffers; they stay on the meta device like the rest."""
    from darkroom.models.resnet import ResNet, ResNetConfig
    from darkroom.weights.assemble import assemble

    config = ResNetConfig(channels=4, blocks=(1, 1))
    state = ResNet(config).state_dict()
    network = assemble(ResNet, config, state, torch.float32, torch.device("meta"))
    assert all(buffer.is_meta for buffer in network.buffers())


# --- architectures without a checkpoint


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sd15", [123_060_480, 859_520_964, 83_653_863, 83_653_863]),
        ("sd15-inpaint", [123_060_480, 859_535_364, 83_653_863, 83_653_863]),
        ("SD2", [340_387_840, 865_910_724, 83_653_863, 83_653_863]),
        ("sd2-depth", [340_387_840, 865_913_604, 83_653_863, 83_653_863, 121_196_289]),
        ("sdxl", [123_060_480, 694_659_840, 2_567_463_684, 83_653_863, 83_653_863]),
        ("mnist", [10_975_329]),
        ("mnist-conditional", [10_984_545]),
        ("ddpm-256", [113_673_219]),
        ("google/ddpm-cat-256", [113_673_219]),
        ("resnet50", [25_557_032]),
        ("distilbert", [66_362_880]),
    ],
)
def test_published_sizes(name, parameters):
    """Features-and-formats 0.4, and torchvision's own figure for ResNet-50."""
    networks = networks_called(name)
    assert [sum(p.numel() for p in n.model.parameters()) for n in networks] == parameters


def test_usual_sizes_and_inputs():
    xl = {network.part: network for network in networks_called("sdxl")}
    assert shapes(xl["U-Net"]) == [(1, 4, 128, 128), (1,), (1, 77, 2048), (1, 2816)]
    assert shapes(xl["text encoder 2"]) == [(1, 77)]
    turbo = {network.part: network for network in networks_called("sdxl-turbo")}
    assert shapes(turbo["U-Net"])[0] == (1, 4, 64, 64)
    sd2 = {network.part: network for network in networks_called("stabilityai/stable-diffusion-2")}
    assert shapes(sd2["U-Net"])[0] == (1, 4, 96, 96)
    assert shapes(networks_called("mnist")[0]) == [(1, 1, 32, 32), (1,)]


ALONE = [n for n in architectures() if not n.startswith("sd")]
LARGE = ["playground-v2.5", "instruct-pix2pix", "openclip-vit-g-14", "openclip-vit-bigg-14",
    "openclip-vit-h-14", "openclip-vit-h-14-378", "clip-vit-l-14-336px", "clip-rn50x16",
    "clip-rn50x64", "resnet152", "openclip-vit-l-14-336", "sam-vit-l",
    "sam-vit-h", "clip-vit-l-14", "openclip-vit-l-14", "clip-rn50x4", "clip-rn101", "fastsam-x",
    "openclip-vit-b-16-plus-240", "openclip-vit-b-32-256", "resnet101"]  # fmt: skip


@pytest.mark.parametrize("name", quick([n for n in ALONE if n not in LARGE], ALONE))
def test_every_network_alone_runs(name):
    for network in networks_called(name):
        assert network.trace(0)[""].flops > 0


def test_names_that_are_none():
    assert networks_called("sd99") is None
    assert networks_called("modelscope-video") is None  # in the catalogue, and no network here
    assert {"sd15", "sd2", "sdxl", "ddpm-256", "mnist"} <= set(architectures())
