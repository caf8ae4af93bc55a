"""A vision transformer in miniature, for demo and tiny."""

from methods.backbones.size import BackboneSize

PLACE = 8
SIZES = {
    "small_vit": BackboneSize(
        107_904, 64, 32, 8.209e6, 158_290, 4, 4, 0.198, unhalved=0.193, batch_norm=False, class_token=True,
        load="timm.models.vision_transformer.VisionTransformer(img_size=32, patch_size=4, embed_dim=64, depth=3, "
        "num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True)",
    )
}  # fmt: skip
