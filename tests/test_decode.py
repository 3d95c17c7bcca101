"""The set encoder and its prefixes."""

import torch

from milanx.decode import SetEncoder, SetEncoderSpec


def _inputs(units: int = 3, k: int = 5) -> tuple[SetEncoder, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    set_encoder = SetEncoder(SetEncoderSpec(features=12, joint=6, width=16, prefix=4)).eval()
    return set_encoder, torch.randn(units, k, 2, 12), torch.randn(units, k, 2, 6)


@torch.inference_mode()
def test_order_of_exemplars_does_not_matter() -> None:
    set_encoder, features, joint = _inputs()
    valid = torch.ones(3, 5, dtype=torch.bool)
    order = torch.tensor([4, 0, 3, 1, 2])
    one = set_encoder(features, joint, valid)
    other = set_encoder(features[:, order], joint[:, order], valid)
    assert one.shape == (3, 4, 16)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_absent_exemplars_change_nothing_and_present_ones_do() -> None:
    set_encoder, features, joint = _inputs()
    valid = torch.tensor([[True, True, True, False, False]] * 3)
    one = set_encoder(features, joint, valid)
    changed = features.clone()
    changed[:, 3:] = 9
    torch.testing.assert_close(one, set_encoder(changed, joint, valid))
    changed[:, 0] += 1
    assert (one - set_encoder(changed, joint, valid)).abs().max() > 1e-3


@torch.inference_mode()
def test_a_unit_is_the_same_alone_and_in_a_batch() -> None:
    set_encoder, features, joint = _inputs()
    valid = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] * 4 + [False]])
    batch = set_encoder(features, joint, valid)
    for u in range(3):
        alone = set_encoder(features[u : u + 1], joint[u : u + 1], valid[u : u + 1])
        torch.testing.assert_close(batch[u : u + 1], alone, atol=1e-5, rtol=1e-5)
