"""Other people's networks, small and with random weights: architectures of timm and of transformers, by name.

Nothing is downloaded. `make test-models` installs the packages.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10
WORDS = 50
"""The vocabulary of language models."""

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Case:
    """An architecture, and the inputs that it takes.

    Attributes:
        build: makes the network.
        size: height and width of an image, or the length of a sequence of words.
        other: another size that the network takes; None if it takes one alone.
        words: whether the inputs are words, int64 (B, size), instead of images (B, 3, size, size).
        include: as for `smx.select`, where all activations are gates.
    """

    build: Callable[[], nn.Module]
    size: int
    other: int | None = None
    words: bool = False
    include: Any = ()

    @property
    def dynamic(self) -> dict[int, str]:
        """The axes beside the batch that may have another length, with their names."""
        if self.other is None:
            return {}
        return {1: "length"} if self.words else {2: "height", 3: "width"}

    def example(self, batch: int, size: int, seed: int = 0) -> Tensor:
        """Return an input with random values."""
        random = torch.Generator().manual_seed(seed)
        if self.words:
            return torch.randint(WORDS, (batch, size), generator=random)
        return torch.randn(batch, 3, size, size, generator=random)


def timm_case(name: str, size: int = 64, other: int | None = 96, include: Any = (), **settings: Any) -> Case:
    """Return an architecture of timm; its settings are those of its factory."""

    def build() -> nn.Module:
        from smx.data.torchvision_sets import import_datasets

        import_datasets()  # timm imports torchvision
        import timm

        made: nn.Module = timm.create_model(name, num_classes=CLASSES, **settings)
        return made

    return Case(build, size, other, include=include)


THIN = (8, 16, 24, 32)
"""Channels of four stages."""
SHORT = (1, 1, 1, 1)
"""Blocks of four stages."""
VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN: dict[str, Any] = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": SHORT, "num_heads": SHORT}

OF_TIMM: dict[str, dict[str, Any]] = {
    # convolutions
    "resnet18": {"layers": SHORT, "channels": THIN},
    "resnet50": {"layers": SHORT, "channels": THIN},
    "seresnet50": {"layers": SHORT, "channels": THIN},
    "ecaresnet26t": {"layers": SHORT, "channels": THIN},
    "resnext50_32x4d": {"layers": SHORT, "cardinality": 4, "base_width": 4},
    "resnetv2_50": {"layers": SHORT, "channels": (32, 32, 64, 64)},
    "skresnet18": {"layers": SHORT},
    "res2net50_26w_4s": {"layers": SHORT},
    "resnest14d": {"layers": SHORT},
    "test_nfnet": {},
    "test_byobnet": {},
    "repvgg_a0": {},
    "regnety_002": {},
    "densenet121": {"block_config": (2, 2, 2, 2), "growth_rate": 8},
    "dla34": {},
    "inception_next_atto": {"depths": SHORT},
    "ese_vovnet19b_slim_dw": {},
    "tresnet_m": {"layers": SHORT},
    # small ones
    "test_efficientnet": {},
    "test_efficientnet_evos": {},
    "mobilenetv2_035": {},
    "mobilenetv3_small_050": {},
    "fasternet_t0": {"depths": SHORT},
    "starnet_s1": {"depths": SHORT},
    "shvit_s1": {"depth": (1, 1, 1)},
    "efficientvit_b0": {"depths": SHORT},
    "edgenext_xx_small": {"depths": SHORT},
    "fastvit_t8": {"layers": SHORT, "size": 64},
    # like ConvNeXt
    "test_convnext": {},
    "test_convnext2": {},
    "convnextv2_atto": {"depths": SHORT, "dims": THIN},
    "test_mambaout": {},
    # transformers
    "test_vit": {"size": 32, "other": None, "img_size": 32},
    "vit_tiny_patch16_224": {"size": 32, "other": None, **VIT},
    "deit3_small_patch16_224": {"size": 32, "other": None, **VIT},
    "vit_relpos_small_patch16_224": {"size": 32, "other": None, **VIT},
    "beit_base_patch16_224": {"size": 32, "other": None, **VIT},
    "eva02_tiny_patch14_224": {"size": 32, "other": None, "include": "*", **VIT},
    "cait_xxs24_224": {"size": 32, "other": None, **VIT},
    "convit_tiny": {"size": 32, "other": None, **VIT, "local_up_to_layer": 1},
    "swin_tiny_patch4_window7_224": {"other": None, **SWIN},
    "swinv2_tiny_window8_256": {"other": None, **SWIN},
    "pvt_v2_b0": {"depths": SHORT},
    "twins_svt_small": {"depths": SHORT, "img_size": 64, "other": None},
    "levit_128s": {"img_size": 64, "other": None, "depth": (1, 1, 1)},
    "pit_ti_224": {"img_size": 64, "other": None, "depth": (1, 1, 1)},
    "visformer_tiny": {"img_size": 64, "other": None, "depth": (1, 1, 1), "embed_dim": 48, "init_channels": 8},
    "xcit_nano_12_p16_224": {"depth": 2, "img_size": 64},
    "test_maxvit": {"other": None, "img_size": 64},
    "test_coatnet": {"other": None, "img_size": 64},
    "coat_lite_tiny": {"other": None, "img_size": 64},
    "tiny_vit_5m_224": {"other": None, "depths": SHORT, "embed_dims": (16, 32, 32, 64), "num_heads": SHORT},
    "efficientformerv2_s0": {"depths": SHORT, "img_size": 64, "other": None},
    "swiftformer_xs": {"layers": SHORT},
    "hiera_tiny_224": {"other": None, "img_size": 64, "embed_dim": 16, "stages": SHORT},
}  # fmt: skip
TIMM = {name: timm_case(name, **settings) for name, settings in OF_TIMM.items()}


def text(kind: str, size: int = 12, other: int | None = 20, include: Any = (), **settings: Any) -> Case:
    """Return an architecture of transformers that reads words; its settings are those of its configuration."""
    return Case(lambda: _huggingface(kind, vocab_size=WORDS, **settings), size, other, words=True, include=include)


def images(kind: str, size: int = 32, other: int | None = None, **settings: Any) -> Case:
    """Return an architecture of transformers that sees images."""
    return Case(lambda: _huggingface(kind, **settings), size, other)


class First(nn.Module):
    """A network of transformers that returns a tensor: the first of its named outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, *)."""
        first: Tensor = self.network(x, return_dict=False)[0]
        return first


def _huggingface(kind: str, **settings: Any) -> nn.Module:
    from smx.data.torchvision_sets import import_datasets

    import_datasets()  # transformers imports torchvision where it is installed
    import transformers

    made = getattr(transformers, kind)
    return First(made(made.config_class(**settings)))


BERT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
}  # fmt: skip
LLAMA: dict[str, Any] = {**BERT, "num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0}
PATCHES: dict[str, Any] = {**BERT, "image_size": 32, "patch_size": 8}
RWKV: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 48, "use_cache": False,
}  # fmt: skip
STAGES: dict[str, Any] = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}

TRANSFORMERS: dict[str, Case] = {
    "BERT": text("BertModel", **BERT),
    "RoBERTa": text("RobertaModel", **BERT, pad_token_id=0),
    "ALBERT": text("AlbertModel", **BERT, embedding_size=16),
    "ELECTRA": text("ElectraModel", **BERT, embedding_size=16),
    "ConvBERT": text("ConvBertModel", **BERT, embedding_size=16),
    "DistilBERT": text("DistilBertModel", dim=32, n_layers=2, n_heads=2, hidden_dim=48),
    "MobileBERT": text("MobileBertModel", **BERT | {"intra_bottleneck_size": 16, "embedding_size": 16}),
    "SqueezeBERT": text("SqueezeBertModel", **BERT, embedding_size=32),
    "DeBERTa v2": text("DebertaV2Model", **BERT),
    "Funnel": text("FunnelBaseModel", block_sizes=[1, 1], d_model=32, n_head=2, d_head=16, d_inner=48),
    "FNet": text("FNetModel", hidden_size=32, num_hidden_layers=2, intermediate_size=48),
    "XLNet": text("XLNetModel", d_model=32, n_layer=2, n_head=2, d_inner=48),
    "T5 encoder": text("T5EncoderModel", d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2),
    "GPT-2": text("GPT2Model", n_embd=32, n_layer=2, n_head=2, n_inner=48, use_cache=False),
    "GPT-Neo": text(
        "GPTNeoModel", hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48,
        attention_types=[[["global", "local"], 1]], use_cache=False,
    ),
    "GPT-NeoX": text("GPTNeoXModel", **BERT, use_cache=False),
    "OPT": text(
        "OPTModel", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48, word_embed_proj_dim=32,
        use_cache=False,
    ),
    "BLOOM": text("BloomModel", hidden_size=32, n_layer=2, n_head=2, use_cache=False),
    "LLaMA": text("LlamaModel", **LLAMA, include="*"),
    "Mamba": text("MambaModel", hidden_size=32, num_hidden_layers=2, state_size=4, use_cache=False),
    "RWKV": text("RwkvModel", **RWKV),
    "ViT": images("ViTModel", **PATCHES),
    "DeiT": images("DeiTModel", **PATCHES),
    "ConvNeXt v2": images("ConvNextV2Model", other=64, **STAGES),
    "SegFormer": images("SegformerModel", size=64, other=96, **STAGES, num_attention_heads=[1, 1, 2, 2]),
    "PoolFormer": images("PoolFormerModel", size=64, other=96, **STAGES),
}  # fmt: skip

CASES: dict[str, dict[str, Case]] = {"transformers": TRANSFORMERS, "timm": TIMM}
"""All architectures, by package and name."""
