"""What is changed in networks of timm, so that they train here as our own do. Names stay."""

from timm.layers import BatchNormAct2d, ConvNormAct
from timm.layers import DropPath as TimmDropPath
from torch import nn

from methods.backbones.dropout import DropPath


def ours(trunk: nn.Module) -> nn.Module:
    """`trunk` of timm, without classifier, with our dropout of paths and torch's own batch normalisation."""
    for parent in list(trunk.modules()):
        for child, module in list(parent.named_children()):
            if isinstance(module, TimmDropPath):
                setattr(parent, child, DropPath(module.drop_prob))
        if isinstance(parent, ConvNormAct):
            _split_normalisation(parent)
    trunk.feature_dim = trunk.num_features
    return trunk


def _split_normalisation(layer: ConvNormAct) -> None:
    """Batch normalisation of its own, its activation behind it: what shares statistics over ranks knows torch's class
    alone."""
    fused = layer.bn
    if not isinstance(fused, BatchNormAct2d):
        raise TypeError(f"{type(fused).__name__} in a layer of timm, where BatchNormAct2d was")
    layer.bn = nn.BatchNorm2d(fused.num_features, eps=fused.eps, momentum=fused.momentum)
    layer.bn.load_state_dict(fused.state_dict(), assign=True)
    layer.aa = fused.act  # what the layer calls last
