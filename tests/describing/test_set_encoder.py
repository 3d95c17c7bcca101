"""The set encoder and its prefixes."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import pad

from milanx.describing.critic import beside_others
from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec, whitening
from milanx.features.evidence import Evidence


def _inputs(units: int = 3, k: int = 5, c: int = 2) -> tuple[SetEncoder, Evidence]:
    torch.manual_seed(0)
    spec = SetEncoderSpec(features=12, joint=6, width=16, prefix=4, words=3, vocabulary=9,
                          pixels=2, components=8, hubness=0.7, frequency=0.4,
                          joint_weight=9.0, furthest=1.5)  # fmt: skip
    set_encoder = SetEncoder(spec).eval()
    evidence = Evidence(
        torch.randn(units, k, 2, 12), torch.randn(units, k, 2, 6),
        torch.ones(units, k, dtype=torch.bool), torch.randn(units, c, 12),
        torch.randn(units, c, 6), torch.ones(units, c, dtype=torch.bool),
    )  # fmt: skip
    set_encoder.learn_usual(evidence, torch.randn(9, 6))
    set_encoder.frequency.copy_(torch.randn(9))
    return set_encoder, evidence


@torch.inference_mode()
def test_order_of_exemplars_does_not_matter() -> None:
    set_encoder, evidence = _inputs()
    order = torch.tensor([4, 0, 3, 1, 2])
    one = set_encoder(evidence)
    other = set_encoder(replace(evidence, features=evidence.features[:, order],
                                joint=evidence.joint[:, order]))  # fmt: skip
    assert one.shape == (3, 4 + 3, 16)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_absent_exemplars_change_nothing_and_present_ones_do() -> None:
    set_encoder, evidence = _inputs()
    valid = torch.tensor([[True, True, True, False, False]] * 3)
    evidence = replace(evidence, valid=valid)
    one = set_encoder(evidence)
    features, joint = evidence.features.clone(), evidence.joint.clone()
    features[:, 3:], joint[:, 3:] = 9, 7
    torch.testing.assert_close(one, set_encoder(replace(evidence, features=features, joint=joint)))
    features[:, 0] += torch.randn(2, 12)
    assert (one - set_encoder(replace(evidence, features=features))).abs().max() > 1e-3


@torch.inference_mode()
def test_a_short_set_beside_longer_ones_is_what_it_is_alone() -> None:
    """Whatever its length: places without an exemplar are none, in prefixes and for the critic."""
    set_encoder, evidence = _inputs(units=5)
    counts = [5, 1, 3, 2, 4]
    valid = torch.tensor([[i < count for i in range(5)] for count in counts])
    together = replace(evidence, valid=valid, features=evidence.features * valid[..., None, None],
                       joint=evidence.joint * valid[..., None, None])  # fmt: skip
    prefixes, vectors = set_encoder(together), set_encoder.critic_vectors(together)
    for unit, count in enumerate(counts):
        row = evidence.rows(slice(unit, unit + 1))
        alone = replace(row, features=row.features[:, :count], joint=row.joint[:, :count],
                        valid=row.valid[:, :count])  # fmt: skip
        torch.testing.assert_close(set_encoder(alone)[0], prefixes[unit], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            set_encoder.critic_vectors(alone)[0], vectors[unit], atol=1e-5, rtol=1e-5
        )


@torch.inference_mode()
def test_contrast_views_are_read_where_there_are_some() -> None:
    set_encoder, evidence = _inputs()
    one = set_encoder(evidence)
    moved = replace(evidence, contrast=evidence.contrast + torch.randn(3, 2, 12))
    assert (one - set_encoder(moved)).abs().max() > 1e-3
    none = torch.zeros_like(evidence.contrast_valid)
    torch.testing.assert_close(set_encoder(replace(evidence, contrast_valid=none)),
                               set_encoder(replace(moved, contrast_valid=none)))  # fmt: skip


@torch.inference_mode()
def test_retrieved_words_equal_the_plain_version() -> None:
    set_encoder, evidence = _inputs()
    evidence = replace(evidence, valid=torch.tensor([[True] * 5, [True] * 2 + [False] * 3,
                                                     [True] * 4 + [False]]))  # fmt: skip
    found = set_encoder.retrieve(set_encoder.critic_vectors(evidence))
    critic = set_encoder.critic
    for u in range(3):
        there = [i for i in range(5) if evidence.valid[u, i]]
        read = torch.stack([set_encoder.read(evidence.features[u, i]) for i in there])
        assert read.abs().max() == 1.5
        joint = torch.stack([evidence.joint[u, i] - set_encoder.joint_mean for i in there])
        beside = torch.stack([set_encoder.read(c) for c in evidence.contrast[u]])
        summary = torch.cat([
            read.mean(0).flatten(), read[:, 0].std(0, correction=0), beside.mean(0),
            9 * joint.mean(0).flatten(),
            9 * (evidence.contrast_joint[u] - set_encoder.joint_mean).mean(0), torch.ones(1),
        ])  # fmt: skip
        mean = sum(evidence.joint[u, i, 0] for i in there) / len(there) - set_encoder.joint_mean
        mean = mean / mean.norm() - 0.7 * set_encoder.usual
        scores = [
            float(critic.body(summary) @ critic.text(pad(word, (0, 9)))
                  + critic.zero_shot * (mean @ word)
                  + 0.4 * often)
            for word, often in zip(set_encoder.vocabulary, set_encoder.frequency, strict=True)
        ]  # fmt: skip
        best = sorted(range(9), key=lambda i: -scores[i])[:3]
        torch.testing.assert_close(found[u], set_encoder.vocabulary[best])


@torch.inference_mode()
def test_agreement_beside_others_equals_the_plain_version() -> None:
    set_encoder, evidence = _inputs()
    vectors, texts = set_encoder.critic_vectors(evidence), torch.randn(7, 15)
    alone = set_encoder.agreement(vectors, texts)
    found = beside_others(alone[:1], alone, pseudo=5)
    for t in range(7):
        others = [math.exp(float(alone[u, t])) for u in range(3)] + [1.0] * 5
        usual = math.log(sum(others) / len(others))
        assert abs(float(found[0, t]) - (float(alone[0, t]) - usual)) < 1e-4
    none = set_encoder.agreement(alone.new_zeros(9, 13), texts)
    assert beside_others(none[:1], none, pseudo=5).abs().max() < 1e-5


@torch.inference_mode()
def test_scores_of_different_sets_can_be_compared() -> None:
    set_encoder, evidence = _inputs()
    vectors = set_encoder.critic_vectors(evidence)
    for vector in vectors:
        scores = [
            float(set_encoder.critic.scores(vector[None, :-1], word[None])) + float(vector[-1])
            for word in set_encoder.vocabulary
        ]
        often = set_encoder.frequency.softmax(0).tolist()
        mean = sum(p * math.exp(s) for p, s in zip(often, scores, strict=True))
        assert mean == pytest.approx(1, abs=1e-4)


@torch.inference_mode()
def test_a_unit_is_the_same_alone_and_in_a_batch() -> None:
    set_encoder, evidence = _inputs()
    valid = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] * 4 + [False]])
    evidence = replace(evidence, valid=valid)
    batch = set_encoder(evidence)
    for u in range(3):
        alone = set_encoder(evidence.rows(slice(u, u + 1)))
        torch.testing.assert_close(batch[u : u + 1], alone, atol=1e-5, rtol=1e-5)


def test_whitened_features_have_variance_one_and_no_correlation() -> None:
    torch.manual_seed(0)
    rows = torch.randn(400, 6) @ torch.randn(6, 6) * torch.tensor([1.0, 9, 0.1, 3, 1, 5])
    axes = whitening(rows, components=4, pixels=2)
    made = (rows - rows.mean(0)) @ axes
    covariance = made[:, :4].T @ made[:, :4] / (len(rows) - 1)
    torch.testing.assert_close(covariance, torch.eye(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(made[:, 4:].std(0), torch.ones(2), atol=1e-3, rtol=0)
    few = whitening(rows[:3], components=4, pixels=2)
    assert few.isfinite().all()
