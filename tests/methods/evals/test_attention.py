"""Attention maps against timm's own softmax, and what is made of them against its definition."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from launcher.errors import InputError
from methods import backbones
from methods.data.sets.made_objects.reader import MadeObjects
from methods.evals.attention.picture import WIDEST, beside_truth, colour, coloured, in_colours, of_heads
from methods.evals.attention.protocol import attended, covered, jaccard, mask_of, of_objects


@pytest.mark.parametrize("shape", [(32, 32), (16, 40)])
def test_the_maps_are_what_timm_multiplies_values_with(shape):
    torch.manual_seed(1)
    ours = backbones.build("small_vit").eval()
    for parameter in ours.parameters():  # far from uniform
        torch.nn.init.normal_(parameter, std=0.3)
    sizes = {"embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 2}
    theirs = VisionTransformer(img_size=32, patch_size=4, num_classes=0, dynamic_img_size=True, **sizes).eval()
    theirs.load_state_dict(ours.trunk.state_dict())
    last = theirs.blocks[-1].attn
    last.fused_attn, seen = False, []
    last.attn_drop.register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    with torch.no_grad():
        theirs(ours.input(image[None]))
    expected = seen[0][0, :, 0, 1:].unflatten(1, (shape[0] // 4, shape[1] // 4))
    found = attended(ours, "small_vit", image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.std() > 0


def test_what_is_kept_is_the_fewest_patches_that_hold_the_mass():
    maps = torch.tensor([[[0.1, 0.5], [0.25, 0.15]], [[0.01, 0.01], [0.01, 0.9]]])
    assert covered(maps, 0.6).tolist() == [[[False, True], [True, False]], [[False, False], [False, True]]]
    assert covered(maps, 1.0).all()
    assert covered(3 * maps, 0.6).tolist() == covered(maps, 0.6).tolist()


def test_jaccard_is_intersection_over_union_at_the_size_of_the_mask():
    kept = np.array([[[True, False], [False, False]], [[True, True], [True, True]]])
    mask = np.zeros((4, 6), np.uint8)
    mask[:2, :2] = 15  # 4 pixels of the 6 that the first patch covers
    assert jaccard(kept, mask) == pytest.approx([4 / 6, 4 / 24])
    mask[0, 2] = mask[3, 5] = 255  # void counts for nobody
    assert jaccard(kept, mask) == pytest.approx([4 / 5, 4 / 22])


def test_an_object_has_its_own_best_head_as_the_authors_count():
    """With their loop over objects: intersection over (object or kept) > 0, the best head, the mean over objects."""
    generator = np.random.default_rng(0)
    kept, mask = generator.random((3, 4, 6)) < 0.4, generator.choice(np.array([0, 7, 15], np.uint8), (4, 6))
    theirs = []
    for value in (7, 15):
        thing = torch.from_numpy(mask == value).float() * torch.ones(3, 1, 1)
        heads = torch.from_numpy(kept).float()
        theirs.append(((thing * heads).sum((1, 2)) / ((thing + heads) > 0).sum((1, 2))).max().item())
    assert of_objects(kept, mask) == pytest.approx(np.mean(theirs))
    assert of_objects(kept, mask) != pytest.approx(max(jaccard(kept, mask)))
    beside = np.concatenate([mask, np.full((4, 6), 255, np.uint8)])
    assert of_objects(np.concatenate([kept, ~kept], axis=1), beside) == of_objects(kept, mask)  # void counts for nobody
    assert of_objects(kept, np.where(mask, 0, mask)) is None


def test_pictures_lie_in_the_evaluation_and_masks_are_found_by_name(evaluated_vit, tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    for number in range(3):
        (images / "a").mkdir(parents=True, exist_ok=True)
        (masks / "a").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(images / "a" / f"{number}.jpg")
        if number < 2:
            Image.fromarray(np.full((30, 40), 7, np.uint8)).save(masks / "a" / f"{number}.png")
    data = ("eval_data=image_folder", f"eval_data.path={images}", "attention.pictures=2", "attention.size=16")
    asked = evaluated_vit.asked("protocol=attention", *data, f"attention.masks={masks}")
    scores = evaluated_vit.serve(asked)["attention"]
    assert scores["images"] == scores["pictures"] == 2
    # All is object: the share of the patches that hold 60 % of the attention.
    assert 20 < scores["jaccard"] <= scores["jaccard_best"] == scores["jaccard_objects"] < 62  # one object an image
    names = [f"000{number}{kind}.png" for number in range(2) for kind in ("", "_heads", "_masks")]
    assert sorted(p.name for p in (asked.path / "attention").iterdir()) == names
    with Image.open(asked.path / "attention" / "0000.png") as picture:
        assert picture.size[0] > 3 * 100 and np.asarray(picture).std() > 10
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no image has a mask"):
        evaluated_vit.scores("protocol=attention", *data, f"attention.masks={tmp_path / 'none'}")


def test_a_backbone_without_class_token_is_refused_when_it_is_asked_for(evaluated):
    with pytest.raises(InputError, match="small_resnet has no class token"):
        evaluated.asked("protocol=attention")


class Known:
    """A data set of one image that says where its objects are."""

    def __init__(self, *, objects=None, pixels=None):
        if objects is not None:
            self.object_masks = lambda index: objects
        if pixels is not None:
            self.pixels = lambda index: pixels


def test_objects_of_the_data_set_are_numbered_and_void_is_what_none_of_them_has():
    objects = np.zeros((2, 2, 3), bool)
    objects[0, :, 0] = objects[1, 0, 1] = True
    pixels = np.array([[5, 5, 255], [255, 0, 0]], np.uint8)
    assert mask_of(Known(objects=objects), 0, None).tolist() == [[1, 2, 0], [1, 0, 0]]
    assert mask_of(Known(objects=objects, pixels=pixels), 0, None).tolist() == [[1, 2, 255], [1, 0, 0]]
    assert mask_of(Known(pixels=pixels), 0, None) is pixels
    assert mask_of(Known(objects=objects[:0]), 0, None).tolist() == [[0] * 3] * 2
    many = np.zeros((300, 1, 300), bool)
    many[np.arange(300), 0, np.arange(300)] = True
    assert mask_of(Known(objects=many), 0, None)[0, [0, 252, 253, 299]].tolist() == [1, 253, 254, 254]  # none is void


def test_data_with_objects_have_them_judged_without_a_folder(evaluated_vit, monkeypatch):
    def object_masks(self, index):
        mask = self.mask(index)
        return np.stack([mask == number for number in range(1, mask.max() + 1)])

    if not hasattr(MadeObjects, "object_masks"):
        monkeypatch.setattr(MadeObjects, "object_masks", object_masks, raising=False)
    few = "eval_data=made/objects", "eval_data.images=76", "attention.pictures=1"
    asked = evaluated_vit.asked("protocol=attention", *few)
    scores = evaluated_vit.serve(asked)["attention"]
    assert scores["images"] == 19 and 0 < scores["jaccard_objects"] < scores["jaccard_best"] < 60
    assert {p.name for p in (asked.path / "attention").iterdir()} == {"0000.png", "0000_heads.png", "0000_masks.png"}


@pytest.mark.parametrize("size", [(32, 32), (640, 427), (300, 1200), (1500, 40)])
@pytest.mark.parametrize("heads", [2, 6, 16])
def test_pictures_have_a_size_that_a_screen_can_show(size, heads):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    maps = rng.random((heads, 4, 6)).astype(np.float32)
    kept, mask = maps > 0.5, rng.choice(np.array([0, 3, 4, 255], np.uint8), (size[1], size[0]))
    drawn = of_heads(photo, maps, kept), in_colours(photo, maps, kept), beside_truth(photo, mask, kept, [0.2] * heads)
    for picture in drawn:
        assert picture.width <= WIDEST and picture.width >= 130 and picture.mode == "RGB"


def test_a_head_has_a_colour_of_its_own_and_the_image_shows_where_none_looks():
    assert len({colour(number) for number in range(40)}) == 40
    maps = np.zeros((2, 1, 4), np.float32)
    maps[0, 0, 0] = maps[1, 0, 3] = 1
    made = np.asarray(coloured(Image.new("RGB", (400, 100), (200, 100, 0)), maps, maps > 0)).astype(int)
    grey = made[50, 200]
    assert np.ptp(grey) == 0  # nobody looks there
    for column, number in ((10, 0), (390, 1)):
        toward, of_head = made[50, column] - grey, np.array(colour(number)) - grey
        assert abs(toward - 0.85 * of_head).max() <= 1


def test_the_truth_has_its_objects_in_colours_and_what_is_kept_is_as_in_the_image():
    photo = Image.new("RGB", (560, 560), (10, 20, 200))
    mask = np.zeros((2, 2), np.uint8)
    mask[0, 0], mask[1, 1] = 9, 255
    kept = np.array([[[True, False], [False, False]], [[False, True], [False, False]]])
    made = np.asarray(beside_truth(photo, mask, kept, [0.1, 0.7])).astype(int)
    side = (made.shape[1] - 24) // 3
    truth, best = (made[20:, 6 + number * (side + 6) :][:side, :side] for number in (1, 2))
    low, high = side // 4, 3 * side // 4
    assert abs(truth[low, low] - (np.array([10, 20, 200]) + colour(0)) / 2).max() <= 1
    assert truth[high, high].tolist() == [150] * 3 and truth[low, high].min() > 190
    assert best[low, high].tolist() == [10, 20, 200] and best[low, low].min() > 190  # of the second head
