"""bitsandbytes on the CPU: moments in 8 bits, a base in 4 bits with LoRA on it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from milanx.errors import InputError, MissingWeights
from milanx.language.gpt2 import build_gpt2
from milanx.train.engine.fit import Record, fit_model
from milanx.train.engine.lora import with_lora
from milanx.train.engine.losses import text_sums
from milanx.train.engine.quant import SMALLEST, adamw8bit, load_4bit
from milanx.train.engine.schedule import FitSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of 2 layers, 64 wide, as `save_pretrained` writes it."""
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("gpt2")
    build_gpt2(300, layers=2, width=64, heads=4, positions=16).save_pretrained(made)
    return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def count_up(model: nn.Module, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    starts = torch.randint(0, 40, (8, 1), generator=torch.Generator().manual_seed(number))
    ids = starts + torch.arange(1, 11)
    return text_sums(model, ids, torch.ones_like(ids, dtype=torch.bool), 0)


def needs_bitsandbytes() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (extra quant) is not installed")


def test_adamw8bit_walks_as_adamw_with_a_quarter_of_the_memory() -> None:
    needs_bitsandbytes()
    torch.manual_seed(0)
    start, aim = torch.randn(64, 128), torch.randn(64, 128)
    ends, sizes = [], []
    for small in (True, False):
        weight = nn.Parameter(start.clone())
        optimiser = (
            adamw8bit([weight], 0.05, weight_decay=0)
            if small
            else torch.optim.AdamW([weight], 0.05, (0.9, 0.98), weight_decay=0)
        )
        for _ in range(40):
            (weight - aim).pow(2).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        state = [v for v in optimiser.state[weight].values() if isinstance(v, torch.Tensor)]
        sizes.append(sum(v.nbytes for v in state if v.numel() > 256))
        ends.append(weight.detach())
    assert weight.numel() >= SMALLEST
    assert sizes[0] == sizes[1] / 4
    walked = (ends[1] - start).norm()
    assert (ends[0] - ends[1]).norm() < 0.1 * walked


def test_adamw8bit_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    needs_bitsandbytes()
    settings = FitSettings(8, 1e-2, optimiser="adamw8bit", checkpoint_every=3)
    path = tmp_path / "checkpoint.safetensors"

    def model() -> nn.Module:
        torch.manual_seed(1)
        return build_gpt2(300, layers=1, width=64, heads=4, positions=16)

    def ended(step: int, loss: float) -> None:
        if step == 4:
            raise OSError

    calm, again = model(), model()
    expected = fit_model(Accelerator(cpu=True), calm, count_up, settings, seed=0)
    with pytest.raises(OSError):
        fit_model(
            Accelerator(cpu=True), model(), count_up, settings, seed=0,
            record=Record(path, advance=ended),
        )  # fmt: skip
    told: list[int] = []
    found = fit_model(
        Accelerator(cpu=True), again, count_up, settings, seed=0,
        record=Record(path, advance=lambda step, loss: told.append(step)),
    )  # fmt: skip
    assert told == [3, 4, 5, 6, 7]
    assert found == expected
    assert all(
        torch.equal(a, b) for a, b in zip(calm.parameters(), again.parameters(), strict=True)
    )
    assert found.losses[-1] < found.losses[0]


def test_products_in_half_precision_need_no_autocast(folder: Path) -> None:
    needs_bitsandbytes()
    base = load_4bit(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = base(inputs_embeds=torch.randn(1, 3, 64)).logits
    assert logits.dtype == torch.float32 and bool(logits.isfinite().all())


def test_lora_learns_on_a_base_of_4_bits(folder: Path) -> None:
    needs_bitsandbytes()
    base = load_4bit(folder)
    block = base.transformer.h[0]
    assert block.attn.c_attn.weight.dtype == torch.uint8
    assert block.attn.c_attn.weight.numel() == 64 * 192 / 2
    whole = (
        build_gpt2(300, layers=2, width=64, heads=4, positions=16).from_pretrained(folder).eval()
    )
    ids = torch.arange(1, 11)[None]
    with torch.no_grad():
        exact, rounded = whole(input_ids=ids).logits, base(input_ids=ids).logits
    error = (exact - rounded).norm() / exact.norm()
    assert 0.001 < error < 0.2  # nf4 rounds a normal weight by some 7 % of its deviation

    torch.manual_seed(0)
    model = with_lora(base, 4, 8, ["c_attn", "c_fc"], 0.1)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    packed = block.attn.c_attn.base_layer.weight.clone()
    settings = FitSettings(25, 2e-2, optimiser="adamw8bit")
    losses = fit_model(Accelerator(cpu=True), model, count_up, settings, seed=0).losses
    assert sum(losses[-3:]) < sum(losses[:3])
    assert torch.equal(packed, block.attn.c_attn.base_layer.weight)
    assert len(losses) == 25


def test_no_such_model(tmp_path: Path) -> None:
    needs_bitsandbytes()
    with pytest.raises(MissingWeights, match="no language model"):
        load_4bit(tmp_path)


def test_its_advice_is_kept_off_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    adamw8bit([nn.Parameter(torch.zeros(4))], 1e-3)
    layer = bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
    # In float32 and with a gradient: bitsandbytes would say that it casts them.
    layer(torch.ones(2, 64, requires_grad=True))
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""
    assert not logging.getLogger("bitsandbytes").isEnabledFor(logging.WARNING)


def test_without_bitsandbytes_the_error_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python marks what cannot be had
    for work in (lambda: adamw8bit([nn.Parameter(torch.zeros(4))], 1e-3),
                 lambda: load_4bit(folder)):  # fmt: skip
        with pytest.raises(InputError, match=r"milanx\[quant\]") as caught:
            work()
        assert caught.value.why == "bitsandbytes is not installed"


def test_a_device_that_is_not_here_is_said(folder: Path) -> None:
    needs_bitsandbytes()
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="4-bit weights do not run on cuda"):
        load_4bit(folder, device="cuda")
    with pytest.raises(InputError, match="8-bit optimiser does not run on cuda") as caught:
        adamw8bit([nn.Parameter(torch.zeros(4))], 1e-3, device="cuda")
    assert "optimiser adamw" in caught.value.ways_out[0]


def test_importing_it_imports_no_bitsandbytes() -> None:
    code = (
        "import sys, milanx.train.engine.quant, milanx.train.engine.fit; "
        "sys.exit('bitsandbytes' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
