"""Generators: a painter whose units are known, by what it makes itself of its latents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from milanx.cli import app
from torch import nn
from typer.testing import CliRunner

import milanx
from milanx.act.audit.findings import audit
from milanx.act.audit.rules import Rule
from milanx.errors import InputError, Interrupted
from milanx.evaluate.p3.aside import run_features
from milanx.evaluate.p4.sheets import aside_sheets, top_aside
from milanx.exemplars import job as jobs
from milanx.exemplars.request import ExtractSettings
from milanx.targets.capture import Capture, find_layers
from milanx.targets.generated import images_again
from milanx.targets.layers import discover
from milanx.targets.zoo import Target, load_target
from tests.exemplars.test_extract import digest
from tests.helpers import noise

SIDE, GRID = 32, 4
PLACES = [(0, 0), (0, 3), (3, 1), (2, 2)]  # where channel c paints: row and column of the grid
COLOURS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)]
LAYERS = ["act", "up"]
HERE = "tests.targets.test_generator"


class Painter(nn.Module):
    """Channel c paints a square of its colour at its place, as bright as latent value c is high."""

    turn: Callable[[torch.Tensor], torch.Tensor] = staticmethod(lambda x: x)

    def __init__(self) -> None:
        super().__init__()
        units = len(PLACES)
        self.begin = nn.Linear(units, units * GRID * GRID, bias=False)
        self.act, self.up = nn.ReLU(), nn.Upsample(scale_factor=SIDE // GRID)
        self.paint, self.end = nn.Conv2d(units, 3, 1, bias=False), nn.Tanh()
        with torch.no_grad():
            self.begin.weight.zero_()
            for unit, (row, column) in enumerate(PLACES):
                self.begin.weight[(unit * GRID + row) * GRID + column, unit] = 1
                self.paint.weight[:, unit, 0, 0] = torch.tensor(COLOURS[unit])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.act(self.begin(z).view(-1, len(PLACES), GRID, GRID))
        return self.end(self.paint(self.up(self.turn(x))))


def painter(count: int = 300) -> milanx.Generator:
    """Return the painter: ``tests.targets.test_generator:painter``."""
    return milanx.Generator(Painter(), latents=(count, len(PLACES)), values=(0, 1), seed=3)


def drawn(count: int = 300) -> np.ndarray:
    """The painter's latents [count, units], drawn again by hand."""
    draw = [np.random.default_rng([3, i]) for i in range(count)]
    return np.stack([d.standard_normal(len(PLACES), np.float32) for d in draw])


def run(out: Path, generator: Any = None, **further: Any) -> milanx.ExemplarStore:
    settings = ExtractSettings(k=5, batch_size=16, checkpoint_seconds=0)
    return milanx.extract(painter() if generator is None else generator, layers=LAYERS, out=out,
                          settings=settings, **further)  # fmt: skip


def photo(root: Path) -> str:
    """A folder of one picture."""
    (root / "photos").mkdir()
    noise(1)[0].save(root / "photos/one.png")
    return str(root / "photos")


def test_exemplars_and_masks_are_where_each_channel_paints(tmp_path: Path) -> None:
    store, z = run(tmp_path / "run"), drawn()
    searched = [row["index"] for row in store.image_table() if row["split"] == "exemplars"]
    assert len(searched) == 240
    for layer in LAYERS:
        for unit, (row, column) in enumerate(PLACES):
            found = store.get(layer, unit)
            best = sorted(searched, key=lambda i: -z[i, unit])[:5]
            assert found.images.tolist() == best
            np.testing.assert_allclose(found.activations, z[best, unit], rtol=1e-6)
            cell = SIDE // GRID
            square = np.zeros((SIDE, SIDE), bool)
            square[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = True
            mask = found.masks[0]
            mask = np.asarray(mask)
            if layer == "up":
                assert (mask == square).all()
            else:  # a cell of a coarse map reaches halfway into those beside it
                near = np.zeros_like(square)
                near[max(0, row * cell - 4) : (row + 1) * cell + 4,
                     max(0, column * cell - 4) : (column + 1) * cell + 4] = True  # fmt: skip
                assert mask[square].mean() > 0.9
                assert not mask[~near].any()
            inside = np.median(np.asarray(found.views[0])[:, square], 1)  # WebP blurs edges
            bright = 255 * np.tanh(z[best[0], unit]) * np.array(COLOURS[unit])
            np.testing.assert_allclose(inside, bright, atol=16)


def test_layers_of_a_generator_are_vectors_until_they_have_places() -> None:
    found = {info.name: info for info in discover(load_target(painter()))}
    assert (found["begin"].kind, found["begin"].units) == ("vector", 64)
    assert (found["act"].kind, found["act"].map_size) == ("conv", (GRID, GRID))
    assert found["act"].rectified
    assert found["paint"].nonlinearity == "tanh"
    assert found["up"].map_size == (SIDE, SIDE)
    assert not any(info.refused or info.inert for info in found.values())


@pytest.mark.parametrize("turn", [lambda x: x.flip(3), lambda x: x.flip(2),
                                  lambda x: x.transpose(2, 3).flip(3)])  # fmt: skip
def test_maps_that_lie_elsewhere_than_the_image_are_refused(turn: Any) -> None:
    module = Painter()
    module.turn = turn
    generator = milanx.Generator(module, latents=(300, len(PLACES)), values=(0, 1))
    found = {info.name: info for info in discover(load_target(generator))}
    assert "does not show at one part" in str(found["act"].refused)
    assert found["up"].refused is None  # from there on they lie as the image does


class Tokens(nn.Module):
    """A row of tokens, one a cell of the picture, beside a branch that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.begin, self.each = nn.Linear(8, 16 * 6), nn.Linear(6, 3)
        self.fixed, self.unread = nn.Embedding(16, 6), nn.Conv2d(3, 5, 1)

    def forward(self, *, z: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.begin(z).view(-1, 16, 6) + self.fixed(label)[:, None]
        image = torch.sigmoid(self.each(x)).transpose(1, 2).reshape(-1, 3, 4, 4)
        self.unread(image)
        return {"sample": image.repeat_interleave(4, 2).repeat_interleave(4, 3)}


def test_latents_by_keyword_tokens_and_what_reaches_no_image() -> None:
    rng = np.random.default_rng(0)
    latents = ({"z": rng.standard_normal(8), "label": i % 16} for i in range(40))
    target = load_target(milanx.Generator(Tokens(), latents=latents, values=(0, 1)))
    found = {info.name: info for info in discover(target)}
    assert (found["each"].kind, found["each"].map_size) == ("neurons", (4, 4))
    assert found["fixed"].kind == "vector"
    assert "reaches the generated image" in str(found["unread"].refused)
    infos = find_layers(target, ["each"])
    assert isinstance(target.model, milanx.Generator)
    with Capture(target, infos) as capture:
        maps = capture.run(target.model.numbers([3, 0]))["each"]
    picture = target.model.picture(3)[::4, ::4].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(maps[0], picture, atol=1 / 255)


def test_an_interrupted_pass_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, seen = jobs.Pass.take, []

    def stopping(self: jobs.Pass, *args: Any) -> None:
        if len(seen) == 7:
            raise KeyboardInterrupt
        seen.append(1)
        take(self, *args)

    monkeypatch.setattr(jobs.Pass, "take", stopping)
    with pytest.raises(Interrupted):
        run(tmp_path / "ended")
    monkeypatch.undo()
    assert digest(run(tmp_path / "ended").root) == digest(run(tmp_path / "whole").root)


def test_other_latents_seeds_or_weights_are_another_run(tmp_path: Path) -> None:
    run(tmp_path / "run")
    heavier = painter()
    with torch.no_grad():
        heavier.module.begin.weight.mul_(1.5)
    others = [painter(299), heavier,
              milanx.Generator(Painter(), latents=(300, len(PLACES)), values=(0, 1), seed=4),
              milanx.Generator(Painter(), latents=drawn(), values=(0, 1)),
              milanx.Generator(Painter(), latents=drawn() + 1, values=(0, 1)),
              milanx.Generator(Painter(), latents=(300, len(PLACES)), values=(0, 1), seed=3,
                               to_image=lambda image: 1 - image)]  # fmt: skip
    for other in others:
        with pytest.raises(InputError, match="holds another run"):
            run(tmp_path / "run", other)
    before = (tmp_path / "run/exemplars/index.json").stat().st_mtime_ns
    run(tmp_path / "run")
    assert (tmp_path / "run/exemplars/index.json").stat().st_mtime_ns == before


def test_a_limit_takes_the_first_latents(tmp_path: Path) -> None:
    some = run(tmp_path / "some", limit=100)
    assert [row["path"] for row in some.image_table()] == [f"latent {i}" for i in range(100)]
    every = run(tmp_path / "every")
    np.testing.assert_array_equal(some.maxima("act"), every.maxima("act")[:100])


def test_the_module_comes_back_as_it_was(tmp_path: Path) -> None:
    generator = painter()
    module = generator.module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    run(tmp_path / "run", generator, dtype="bfloat16")
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())


def test_a_run_says_what_made_its_images_and_they_can_be_made_again(tmp_path: Path) -> None:
    run(tmp_path / "run", f"{HERE}:painter")
    settings = json.loads((tmp_path / "run/run.json").read_text())
    assert settings["images"]["made"]["latents"]["kind"] == "normal"
    assert settings["images"]["made"]["latents"]["seed"] == 3
    assert settings["images"]["sources"][0]["kind"] == "generated"
    again = images_again(settings)
    assert again.fingerprint == settings["images"]["fingerprint"]
    assert np.asarray(again.read(7)).tolist() == painter().eval().picture(7).tolist()
    given = {**settings, "target": {**settings["target"], "name": "Painter"}}
    with pytest.raises(InputError, match="cannot be made again"):
        images_again(given)


class _Colours:
    """Encodes a view as its mean colour, as P3's simulators encode."""

    key, process = "mean colours", None

    def encode(self, views: torch.Tensor) -> torch.Tensor:
        return views.float().mean((2, 3)) / 255


def test_protocols_see_the_generated_images_that_were_kept_aside(tmp_path: Path) -> None:
    run(tmp_path / "run", f"{HERE}:painter")
    opened = milanx.open_run(tmp_path / "run")
    kept = [r["index"] for r in opened.store.image_table() if r["split"] == "aside"]
    colours = run_features(_Colours(), opened, kept)  # type: ignore[arg-type]
    generator = painter()
    generator.opened()
    own = [generator.picture(i).mean((0, 1)) / 255 for i in kept]
    np.testing.assert_allclose(colours, own, atol=2e-3)
    best = top_aside(opened, "act", [0, 2], 3)
    assert best[2].tolist() == sorted(kept, key=lambda i: -drawn()[i, 2])[:3]
    target, images = load_target(f"{HERE}:painter"), images_again(opened.settings)
    sheets = aside_sheets(opened, "act", best, target, images)
    assert sheets[2].images.tolist() == best[2].tolist()


def test_descriptions_are_scored_on_generated_images(
    tmp_path: Path, describer: milanx.Describer
) -> None:
    made = milanx.describe(painter(260), layers=["act"], units="0", out=tmp_path / "run",
                           describer=describer)  # fmt: skip
    assert made["act", 0].description
    assert made.settings["score"]["images"] == 52
    rule = Rule(
        "all", "note", "It has a description.", "Read it.", words=(made["act", 0].description,)
    )
    found = audit(made, rules=[rule], model=painter(260)).findings
    assert [finding.effect for finding in found] == [
        "the target is a generator, which is shown no images"
    ]


def test_layers_and_exemplars_on_the_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["layers", f"{HERE}:painter", "--json"])
    assert [row["name"] for row in json.loads(listed.stdout)] == [
        "begin", "act", "up", "paint", "end",
    ]  # fmt: skip
    options = ["-l", "act", "--out", str(tmp_path / "run")]
    made = runner.invoke(app, ["exemplars", f"{HERE}:painter", *options])
    assert made.exit_code == 0, made.output
    refused = runner.invoke(
        app, ["exemplars", f"{HERE}:painter", *options, "--images", photo(tmp_path)]
    )
    assert refused.exit_code == 2
    assert "a generator is not shown" in refused.output


class Odd(nn.Module):
    """Gives what a function makes of its latent."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.scale, self.function = nn.Parameter(torch.ones(1)), function

    def forward(self, z: torch.Tensor) -> Any:
        return self.function(z * self.scale)


def _pixels(z: torch.Tensor, height: int = 8) -> torch.Tensor:
    return torch.sigmoid(z[:, :3, None, None].expand(-1, 3, height, 8))


NAN = float("nan")
MADE: list[tuple[Callable[[torch.Tensor], Any], str]] = [
    (lambda z: {"loss": 1}, "gave a dict, no floats"),
    (lambda z: ["a photo of a dog"] * len(z), "gave a list, no floats"),
    (lambda z: z, "gives no images"),
    (lambda z: _pixels(z)[:1], "gives no images"),
    (lambda z: _pixels(z) * NAN, "NaN or infinite"),
    (lambda z: _pixels(z) * 4, "outside 0 to 1"),
    (lambda z: _pixels(z) - 1, "outside 0 to 1"),
    (lambda z: torch.sigmoid(torch.randn(len(z), 3, 8, 8)), "another image each time"),
    (lambda z: _pixels(z - 3 * z.mean(0)), "what else is in the batch"),
    (lambda z: _pixels(z * 0), "ignores its latents"),
    (lambda z: z @ torch.ones(7, 7), "fails on 2 latents of"),
]


@pytest.mark.parametrize(("function", "said"), MADE)
def test_what_a_generator_makes_is_refused_in_three_lines(
    function: Callable[[torch.Tensor], Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_target(milanx.Generator(Odd(function), latents=(20, 4), values=(0, 1)))
    assert len(str(caught.value).splitlines()) == 3


GIVEN: list[tuple[Any, str]] = [
    ([[0.0, 1.0], [0.0, 1.0, 2.0]], "another shape than the first"),
    ([{"z": np.zeros(4)}, {"w": np.zeros(4)}], "another shape than the first"),
    ([np.zeros(4), np.array([0, 0, NAN, 0])], "no numbers"),
    ([np.zeros(4), "a cat"], "no array of numbers"),
    ([np.zeros(4), [[1.0], [1.0, 2.0]]], "no array of numbers"),
    ([], "0 latents are too few"),
    ((1, 4), "1 latents are too few"),
    ((20, 0), "no latent has the shape"),
    ("normal", "no latents are a str"),
    (7, "no latents are a int"),
]


@pytest.mark.parametrize(("given", "said"), GIVEN)
def test_latents_that_cannot_be_used_are_refused_in_three_lines(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        milanx.Generator(Odd(_pixels), latents=given, values=(0, 1))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("values", [(1, 0), (0, NAN), 1, None])
def test_a_range_must_be_one(values: Any) -> None:
    with pytest.raises(InputError, match="black and white") as caught:
        milanx.Generator(Odd(_pixels), latents=(20, 4), values=values)
    assert len(str(caught.value).splitlines()) == 3


def late(function: Callable[[torch.Tensor], torch.Tensor], **further: Any) -> Target:
    """A generator of which the first two latents are as the others are not."""
    latents = torch.zeros(20, 4)
    latents[:, 1] = torch.arange(20.0) / 20
    latents[9, 0] = 1
    return load_target(milanx.Generator(Odd(function), latents=latents, values=(0, 1), **further))


@pytest.mark.parametrize(("function", "said"), [
    (lambda z: _pixels(z, 8 if not float(z[0, 0]) else 6), "several sizes"),
    (lambda z: _pixels(torch.where(z[:, :1] > 0, torch.full_like(z, NAN), z)), "latent 9"),
    (lambda z: _pixels(z) + z[:, :1, None, None], "the image of latent 9 has"),
])  # fmt: skip
def test_a_later_picture_that_cannot_be_used_is_named(
    function: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    target = late(function)
    assert isinstance(target.model, milanx.Generator)
    assert target.model.picture(8).shape == (8, 8, 3)
    with pytest.raises(InputError, match=said) as caught:
        target.model.picture(9)
    assert len(str(caught.value).splitlines()) == 3


def test_values_outside_are_cut_where_that_is_asked_for() -> None:
    target = late(lambda z: _pixels(z) + z[:, :1, None, None], clamp=True)
    assert isinstance(target.model, milanx.Generator)
    assert target.model.picture(9)[..., 0].tolist() == [[255] * 8] * 8


def test_a_generator_is_shown_no_images(tmp_path: Path) -> None:
    target = load_target(painter())
    with pytest.raises(InputError, match="is a generator"):
        target.inputs(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match="is not shown"):
        run(tmp_path / "run", images=photo(tmp_path))
    with pytest.raises(InputError, match="no preprocessing"):
        run(tmp_path / "run", preprocess=milanx.Preprocess())
    assert not (tmp_path / "run").exists()


def test_another_call_and_grey_pictures() -> None:
    module = Odd(lambda z: z)
    generator = milanx.Generator(
        module, latents=(20, 4), values=(-1, 1), call=lambda z: {"z": module(z)},
        to_image=lambda made: torch.tanh(made["z"])[:, :1, None, None].expand(-1, 1, 4, 4),
    )  # fmt: skip
    load_target(generator)
    expected = round((np.tanh(float(generator.latents.one(5)[""][0])) + 1) / 2 * 255)
    assert np.unique(generator.picture(5)).tolist() == [expected]


def test_the_decoder_of_a_diffusion_models_autoencoder(tmp_path: Path) -> None:
    """Its layers stand where the image is; keys and values of attention stand nowhere in it."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        latent_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    generator = milanx.Generator(
        vae, latents=(24, (4, 8, 8)), values=(-1, 1), clamp=True,
        call=lambda z: vae.decode(z).sample,
    )  # fmt: skip
    found = {info.name: info for info in discover(load_target(generator))}
    assert found["decoder.mid_block"].map_size == (8, 8)
    assert found["decoder.up_blocks.0"].map_size == (16, 16)
    assert found["decoder.conv_norm_out"].nonlinearity == "silu"
    assert "does not show" in str(found["decoder.mid_block.attentions.0.to_v"].refused)
    assert not any(name.startswith("encoder") for name in found)
    store = milanx.extract(generator, layers=["decoder.up_blocks.0"], out=tmp_path / "run")
    assert store.get("decoder.up_blocks.0", 3).masks.shape[1:] == (16, 16)
