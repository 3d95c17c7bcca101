"""What the encoder's own classifier says of exemplar sets, and of units that are described."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch

import milanx
from milanx.exemplars.planted import plant
from milanx.features.classes import ClassHead, class_head, class_vectors
from milanx.features.evidence import Evidence
from milanx.features.smallclip import Projection, SmallClipEncoder, SmallClipSpec
from milanx.language.words import plural
from milanx.targets.weights import package_state_dict
from tests.helpers import noise

K = 5


def sets(features: torch.Tensor, valid: torch.Tensor) -> Evidence:
    nothing = torch.zeros(len(features), 0, 1)
    return Evidence(features, nothing, valid, nothing, nothing, nothing)


def test_evidence_is_the_mean_over_the_exemplars_that_there_are() -> None:
    head = ClassHead(torch.eye(3, 4), torch.zeros(3), ("ant", "bee", "crane"))
    features = torch.zeros(2, 3, 2, 6)
    features[0, 0, 0, 1], features[0, 1, 0, 1], features[0, 2, 0, 0] = 9, 9, 99
    features[1, 0, 0, 2], features[1, 1, 1, 0] = 9, 99  # what a whole view shows is not asked
    valid = torch.tensor([[True, True, False], [True, False, False]])
    found = head.evidence(sets(features, valid))
    one = torch.tensor([9.0, 0, 0]).softmax(0)
    torch.testing.assert_close(found[0, [1, 0, 2]], one)
    torch.testing.assert_close(found[1, [2, 0, 1]], one)
    assert [row[0] for row in head.most(sets(features, valid), 2)] == ["bee", "crane"]


def test_a_whole_view_gives_the_classifiers_own_answer(describer: milanx.Describer) -> None:
    encoder: Any = describer.encoder
    head = class_head(encoder)
    assert head is not None and len(head.names) == 1000 and head.names[207] == "golden retriever"
    model = timm.create_model(encoder.spec.tower).eval()
    model.load_state_dict(package_state_dict(encoder.spec.tower) or {})
    views = np.stack([np.asarray(p.resize((240, 240))) for p in noise(3)])
    views = torch.from_numpy(views).permute(0, 3, 1, 2)
    with torch.inference_mode():
        own = model((views.float() / 255 - 0.5) / 0.5).softmax(-1)
        last = encoder.trunk.forward_features((views.float() / 255 - 0.5) / 0.5).mean((2, 3))
    features = last[:, None, None].expand(-1, 1, 2, -1)
    found = head.evidence(sets(features, torch.ones(3, 1, dtype=torch.bool)))
    torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-3)
    assert class_head(SimpleNamespace(spec=SimpleNamespace())) is None  # type: ignore[arg-type]


def test_a_projection_is_told_what_the_classifier_says() -> None:
    torch.manual_seed(0)
    told, plain = Projection(6, 4, 8, classes=3).eval(), Projection(6, 4, 8).eval()
    told.reset()
    plain.load_state_dict({k: v for k, v in told.state_dict().items()
                           if k not in ("names", "said.weight")})  # fmt: skip
    told.class_weight.copy_(20 * torch.eye(3, 6))
    told.names.copy_(torch.eye(3, 4))
    features = torch.eye(6)[:3].expand(2, 3, 6)
    with torch.no_grad():
        more = told(features) - plain(features)
    torch.testing.assert_close(more, torch.eye(3, 4).expand(2, 3, 4), atol=1e-4, rtol=0)
    assert "class_weight" not in told.state_dict()  # it comes with the tower


def test_an_encoder_that_is_told_of_classes_has_the_same_dense_features() -> None:
    encoder = SmallClipEncoder(SmallClipSpec(edges=True, classes=True))
    assert encoder.fingerprint() == SmallClipEncoder(SmallClipSpec(edges=True)).fingerprint()
    weights = package_state_dict("tf_efficientnet_lite1") or {}
    torch.testing.assert_close(encoder.projection.class_bias, weights["classifier.bias"])
    names = class_vectors(encoder)
    assert names.shape == (1000, 384)
    assert int((names @ encoder.texts(["golden retriever"])[0]).argmax()) == 207


def test_named_classes_are_ranked_beside_the_others(
    describer: milanx.Describer, tmp_path: Path
) -> None:
    views = [np.asarray(p.resize((224, 224))) for p in noise(20)]
    maps = np.ones((K, 14, 14), np.float32)
    rows = [{"index": i, "split": "exemplars", "source": "s", "group": str(i)} for i in range(20)]
    store = plant(tmp_path / "planted", [np.arange(K), np.arange(K, 2 * K)], [maps, maps],
                  enumerate(views), rows, activations=np.eye(20, 2, dtype=np.float32))  # fmt: skip
    how = describer.search_defaults(candidates=400, retrieved=0, composed=0, beam=4)
    plain = describer.describe(store, settings=how)
    with_classes = describer.describe(
        store, settings=describer.search_defaults(candidates=400, retrieved=0, composed=0, beam=4,
                                                  classes=6)
    )  # fmt: skip
    head = class_head(describer.encoder)
    assert head is not None and "classes" not in {c.text for d in plain for c in d.candidates}
    names = {plural(name) for name in head.names}
    for before, after in zip(plain, with_classes, strict=True):
        new = {c.text for c in after.candidates} - {c.text for c in before.candidates}
        assert 0 < len(new) <= 6 and new <= names
        assert {c.text for c in before.candidates} <= {c.text for c in after.candidates}
