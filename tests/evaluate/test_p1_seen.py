"""What is seen in exemplar sets equals the plainest mean over them, and is looked at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from milanx.describing.describer import Describer
from milanx.evaluate.p1 import seen
from milanx.evaluate.p1.seen import Sets, logit_means, pooled_means
from milanx.exemplars.planted import MAP, VIEW_SIZE, plant
from milanx.exemplars.store import ExemplarStore
from milanx.features.encoder import encode_views, exemplar_features, view_maps
from milanx.images.preprocess import Preprocess
from milanx.targets.zoo import Target

UNITS = (("planted", 2, "+"), ("planted", 0, "+"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ExemplarStore:
    """Three units over twelve views, one of them with a single exemplar."""
    rng = np.random.default_rng(0)
    views = {i: rng.integers(0, 256, (*VIEW_SIZE, 3), np.uint8) for i in range(12)}
    sets = [np.array(s) for s in ([0, 3, 5, 7], [1, 2, 3, 4], [11, -1, -1, -1])]
    maps = [rng.random((4, MAP, MAP)).astype(np.float32) for _ in sets]
    table = [{"index": i, "split": "exemplars"} for i in range(12)]
    out = tmp_path_factory.mktemp("seen") / "store"
    return plant(out, sets, maps, sorted(views.items()), table)


@pytest.fixture
def chosen(store: ExemplarStore) -> Sets:
    layer = store.layers[0]
    return Sets(store, tuple((layer, unit, sign) for _, unit, sign in UNITS))


def test_pooled_features_are_those_of_each_set_by_itself(
    chosen: Sets, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "VIEWS_AT_ONCE", 2)
    store, encoder, layer = chosen.store, describer.encoder, chosen.store.layers[0]
    features = encode_views(encoder, store)
    grid, expected = encoder.spec.grid, []
    for row in (2, 0):
        weights = store.mask_weights(layer, [row], (grid, grid))
        pooled, valid = exemplar_features(
            features, store.images(layer)[[row]], weights, view_maps(features)
        )
        expected.append(pooled[0][valid[0]].mean(0).flatten().numpy())
    assert chosen.views == [0, 3, 5, 7, 11]
    found = pooled_means(chosen, encoder)
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-5)


def test_what_was_seen_once_is_kept(
    chosen: Sets, describer: Describer, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    first = pooled_means(chosen, describer.encoder)
    asked: list[int] = []
    monkeypatch.setattr(type(describer.encoder), "dense", lambda self, views: asked.append(1))
    assert (pooled_means(chosen, describer.encoder) == first).all()
    other = Sets(chosen.store, chosen.units[::-1])
    with pytest.raises(AttributeError):  # of None, which the encoder gives now
        pooled_means(other, describer.encoder)
    (file,) = (own_cache / "p1").iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(AttributeError):
        pooled_means(chosen, describer.encoder)
    assert len(asked) == 2


def test_logits_are_those_of_each_set_by_itself(
    chosen: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "BATCH", 2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(),
                                torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())  # fmt: skip
    target = Target("t", model, Preprocess((32, 32), 32), "0" * 16, "drawn")
    expected = []
    for images in ([11], [0, 3, 5, 7]):
        views = torch.from_numpy(np.stack([chosen.store.view(i) for i in images])).float()
        small = torch.nn.functional.interpolate(views, (32, 32), mode="bilinear", antialias=True)
        with torch.no_grad():
            expected.append(model(target.inputs(small.round().to(torch.uint8))).mean(0).numpy())
    np.testing.assert_allclose(logit_means(chosen, target), np.stack(expected), rtol=1e-4,
                               atol=1e-5)  # fmt: skip
    silent = SimpleNamespace(fingerprint=target.fingerprint, model=None)
    np.testing.assert_array_equal(logit_means(chosen, silent), logit_means(chosen, target))  # type: ignore[arg-type]
