"""AlexNet with batch normalisation on Sobel input: DeepCluster's (thesis 3.2.1)."""

from torch import nn

from methods.backbones import plain
from methods.backbones.dropout import Dropout

POOLED = 6  # cells a side that 224 pixels leave after the last pooling


class AlexNet(plain.Plain):
    """Krizhevsky et al. 2012 with 96, 256, 384, 384 and 256 filters and batch normalisation in place of local response
    normalisation, up to the second fully connected layer before its ReLU.

    float [B, 2, H, W] (Sobel), H and W at least 63, -> [B, 4096].
    """

    feature_dim = 4096

    def __init__(self, dropout: float = 0.5):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2
        # (filters, kernel, stride, padding, pooling behind it)
        for width, kernel, stride, padding, pools in (
            (96, 11, 4, 2, True),
            (256, 5, 1, 2, True),
            (384, 3, 1, 1, False),
            (384, 3, 1, 1, False),
            (256, 3, 1, 1, True),
        ):
            layers += [
                nn.Conv2d(channels, width, kernel, stride, padding),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            if pools:
                layers.append(nn.MaxPool2d(3, 2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(POOLED)  # nothing happens at 224 pixels
        self.classifier = nn.Sequential(
            Dropout(dropout),
            nn.Linear(channels * POOLED**2, 4096),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(4096, self.feature_dim),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)


build, stages = AlexNet, plain.stages
