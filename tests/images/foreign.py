"""Models of others in miniature, of transformers' own classes, in folders as their makers save them."""

from pathlib import Path

import torch


def write_foreign_models(root: Path) -> Path:
    """root/segmentation: a Segformer whose bias alone speaks, for its label Car; root/depth: a GLPN model."""
    from transformers import (
        GLPNConfig,
        GLPNForDepthEstimation,
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessorPil,
    )

    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]}
    labels = {0: "sky", 1: "building", 2: "Car"}
    segments = SegformerForSemanticSegmentation(SegformerConfig(**sizes, decoder_hidden_size=8, id2label=labels))
    with torch.no_grad():
        segments.decode_head.classifier.weight.zero_()
        segments.decode_head.classifier.bias.copy_(torch.tensor([0.0, 1.0, 5.0]))
    depths = GLPNForDepthEstimation(GLPNConfig(**sizes, decoder_hidden_size=8))
    for name, model in (("segmentation", segments), ("depth", depths)):
        model.save_pretrained(root / name)
        SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(root / name)
    return root
