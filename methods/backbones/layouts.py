"""The backbone among the tensors of a file, however its publisher lays them out: all of it, or a refusal.

What is left over is part of a network that is not ours, and an error, but for what every evaluation throws away: heads,
the second network of a pair, and the state of a training.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from launcher.errors import InputError
from methods.backbones import build, network
from methods.backbones.export import imported
from methods.backbones.inputs import SobelInput
from methods.backbones.reading import tensors
from methods.backbones.spec import BACKBONES

# What wraps a module and stands in the names, anywhere: DataParallel and DDP, compilation, FSDP, checkpointing.
WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
# What trainers put around a backbone, in front of the names of its parameters.
AROUND = frozenset((
    "model", "state_dict", "model_state_dict", "backbone", "trunk", "encoder", "network", "net", "base_model",
    "base_encoder", "_feature_blocks", "body", "classy_state_dict", "teacher", "student", "encoder_q",
    "encoder_k", "online_network", "target_network", "online_encoder", "target_encoder", "online_backbone",
    "target_backbone", "momentum_encoder", "momentum_backbone", "backbone_momentum", "student_backbone",
    "convnet", "teacher_backbone", "vit", "resnet", "ema", "model_ema", "state_dict_ema",
))  # fmt: skip
# Of two networks under these names the second is what its authors evaluate: `--checkpoint_key teacher` of DINO's
# evaluations, encoder_q of main_lincls.py of MoCo, base_encoder of MoCo v3's, `backbone` of solo-learn and lightly.
PAIRS = {
    "student": "teacher",
    "student_backbone": "teacher_backbone",
    "encoder_k": "encoder_q",
    "momentum_encoder": "base_encoder",
    "momentum_backbone": "backbone",
    "backbone_momentum": "backbone",
    "target_network": "online_network",
    "target_encoder": "online_encoder",
    "target_backbone": "online_backbone",
}
THROWN_AWAY = re.compile(
    # heads, for classes, projections and predictions
    r"fc|(\w+_)?heads?|(\w+_)?classifiers?|linear|clf|probe|top_layer|pred_layer|(\w+_)?projectors?|(\w+_)?predictors?"
    r"|(\w*_)?(projection|prediction)_head\w*|(\w+_)?prototypes\w*|neck|last_layer|decoder\w*|mask(ed)?_(token|embed)"
    r"|projetion"  # so BYOL-PyTorch spells it
    # the state of a training
    r"|optim\w*|(lr_)?schedulers?|(fp16_|loss_|grad_)?scaler|amp|(\w+_)?loss\w*|criterion|(\w+_)?queue\w*|memory_bank"
    r"|center|hooks|meters|callbacks|loops|args|config|hyper_parameters|\w*rng_state\w*"
)
COUNTER = "num_batches_tracked"  # of batch normalisation; old files lack it, and nothing depends on it here
NAMED = 3  # parameters of a kind in a message
# Publisher -> what occurs among its names, without wrappers.
LAYOUTS = {
    "DINO's full checkpoint": (r"^teacher\.", r"^student\.", r"^dino_loss\.|^teacher\.(backbone|head)\."),
    "MoCo": (r"(^|\.)encoder_q\.", r"(^|\.)encoder_k\.|^state_dict\."),
    "MoCo v3": (r"(^|\.)base_encoder\.", r"(^|\.)momentum_encoder\.|^state_dict\."),
    "BYOL-PyTorch": (r"(^|\.)online_network\.", r"(^|\.)target_network\."),
    "VISSL": (r"^classy_state_dict\.", r"\.base_model\.model\.trunk\."),
    "SwAV": (r"(^|\.)projection_head\.", r"(^|\.)prototypes\."),
    "DeepCluster": (r"^(state_dict\.)?features\.", r"(^|\.)top_layer\."),
    "DeeperCluster": (r"^(state_dict\.)?body\.features\.", r"(^|\.)pred_layer\.|(^|\.)sobel\."),
    "lightly": (r"(^|\.)backbone\w*\.0\.weight$", r"(^|\.)backbone\w*\.4\.0\."),
    "solo-learn": (r"^state_dict\.backbone\.", r"^state_dict\.(projector|classifier)\."),
    "MAE": (r"(^|\.)decoder_(blocks|embed)\.", r"(^|\.)mask_token$"),
    "DINOv2": (r"\.ls1\.gamma$", r"(^|\.)(mask_token|reg(ister)?_tokens?)$"),
    "transformers": (r"\.attention\.attention\.query\.", r"embeddings\."),
    "torchvision's transformers": (r"(^|\.)encoder\.layers\.encoder_layer_0\.", r"(^|\.)conv_proj\."),
    "VISSL's RegNet": (r"_feature_blocks\.res\d\.block\d-0\.",),
    "torchvision's RegNet": (r"(^|\.)trunk_output\.block1\.block1-0\.",),
    "timm's transformers": (r"(^|\.)patch_embed\.proj\.weight$", r"(^|\.)blocks\.0\.attn\.qkv\.weight$"),
    "torchvision and timm": (r"(^|\.)layer1\.0\.conv1\.weight$", r"(^|\.)bn1\.weight$"),
}
PLAIN = "plain names"
# Of the same names and shapes, and yet another network: (ours, what occurs among its names, why).
ELSEWHERE = (("vit_small_16", r"(^|\.)(base|momentum)_encoder\.", "MoCo v3's ViT-S has 12 heads of attention, ours 6"),)


@dataclass(frozen=True)
class Source:
    """Where tensors come from, for messages: the field and the path that were given; backbone: the field that names
    the backbone, where a person may give another; key: whether one may say `key=`."""

    field: str
    path: Path
    backbone: str | None = None
    key: bool = False

    def refuse(self, reason: str, fix: str) -> InputError:
        return InputError.of(self.field, self.path, reason, fix)


@dataclass(frozen=True)
class Found:
    """A backbone in a file. state: of a `wrapper.Backbone`, whole and in its shapes; under: what stood before its
    names; layout: whose it is; thrown_away: by the beginnings of their names."""

    state: dict[str, torch.Tensor]
    under: str
    layout: str
    thrown_away: list[str]


@dataclass
class _Try:
    """What comes of taking the names under `start` for those of a backbone, in one of its publishers' ways."""

    start: str
    needed: int
    missing: list[str]
    left: list[str] = field(default_factory=list)
    thrown: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    state: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.left or self.shapes)


def fitted(content: Mapping[str, torch.Tensor], name: str, source: Source, key: str | None = None) -> Found:
    """The backbone `name` of `methods.backbones.build` in the tensors of a file (`reading.tensors`).

    key: only those of this dictionary, or with this beginning. Raises InputError, one line, where the backbone is not
    there wholly and in its shapes, where there are two and nothing says which, or where something is left over that is
    neither a head nor a training's state: a network with more in it computes something else.
    """
    named = _without_wrappers(content, source)
    if key is not None:
        named = _below(named, key)
    tries = _tries(named, name)
    whole = [tried for tried in tries if not tried.missing and not tried.shapes]
    known = [tried for tried in whole if _known(tried.start)]
    known = [tried for tried in known if not any(_partner(tried.start) == other.start for other in known)]
    if len(known) > 1:
        starts = [tried.start.rstrip(".") or "no name" for tried in known]
        fix = f"say which: key={starts[0]}" if source.key else "save the one that is meant in a file of its own"
        raise source.refuse(f"it holds the backbone {len(known)} times, under {', '.join(starts)}", fix)
    if not known and whole:
        start = whole[0].start.rstrip(".")
        fix = f"say key={start}, if it is meant" if source.key else "save that part in a file of its own"
        raise source.refuse(f"the backbone is under {start}, as in no layout that is known", fix)
    if not known or not known[0].fits:
        raise _refused(named, name, (known or tries)[0], source)
    found = known[0]
    for ours, marks, reason in ELSEWHERE:
        if name == ours and any(re.search(marks, text) for text in named):
            raise source.refuse(f"{reason}: the same names, and another network", "give another file")
    _check_colours(named, found, name, source)
    layout, share = nearest_layout(named)
    return Found(found.state, found.start, layout if share == 1 else PLAIN, found.thrown)


def of_file(name: str, source: Source, key: str | None = None) -> Found:
    """`fitted`, of the file of `source`. Raises InputError, one line, where it cannot be read, as `fitted` does, and
    where numbers of the backbone are not finite: what diverged trains and says nothing."""
    found = fitted(tensors(source.path, source.field), name, source, key)
    bad = [text.removeprefix("trunk.") for text, value in found.state.items() if not value.isfinite().all()]
    if bad:
        reason = f"it holds numbers that are not finite, in {len(bad)} of {len(found.state)} tensors ({_listed(bad)})"
        raise source.refuse(reason, "give weights of a training that did not diverge, or from before it did")
    return found


def nearest_layout(names: Iterable[str]) -> tuple[str, float]:
    """(whose layout the names are most like, the share of its marks that they have)"""
    text = "\n".join(names)
    found = {who: [bool(re.search(mark, text, re.M)) for mark in marks] for who, marks in LAYOUTS.items()}
    share = {who: sum(marks) / len(marks) for who, marks in found.items()}
    best = max(share, key=lambda who: share[who])
    return (best, share[best]) if share[best] else (PLAIN, 0.0)


def _tries(named: Mapping[str, torch.Tensor], name: str) -> list[_Try]:
    """Beginnings of names behind which the whole backbone is, in whatever way its parameters are called; where there is
    none, the one that comes nearest."""
    ours = [key.removeprefix("trunk.") for key in _shapes(name)]
    needed = [own for own in ours if not own.endswith(COUNTER)]
    found: list[tuple[int, str, dict[str, str]]] = []
    for theirs in ({own: own for own in ours}, *({own: way(own) for own in ours} for way in _ways(name))):
        first = theirs[min(needed)]
        starts = {text.removesuffix(first) for text in named if text == first or text.endswith(f".{first}")}
        starts |= {start for text in named for start in _leading(text)}
        found += [(sum(start + theirs[own] not in named for own in needed), start, theirs) for start in sorted(starts)]
    least = min(missing for missing, _, _ in found)
    best = [(start, theirs) for missing, start, theirs in found if missing == least]
    return [_tried(named, start, theirs, name) for start, theirs in (best if not least else best[:1])]


@cache
def _shapes(name: str) -> dict[str, torch.Size]:
    """The parameters and statistics of the backbone, of which nothing is drawn."""
    with torch.device("meta"):
        return {key: value.shape for key, value in build(name).state_dict().items()}


def _tried(named: Mapping[str, torch.Tensor], start: str, theirs: dict[str, str], name: str) -> _Try:
    missing = [f"{start}{n}" for n in theirs.values() if start + n not in named and not n.endswith(COUNTER)]
    tried = _Try(start, sum(not own.endswith(COUNTER) for own in theirs), missing)
    taken = {start + n for n in theirs.values()}
    parts = {n.partition(".")[0] for n in theirs.values()}
    unused = re.compile(getattr(network(name), "UNUSED", "$^"))
    for text in named:
        if text in taken:
            continue
        part, known = _thrown_away(text, start, parts, BACKBONES[name].colour)
        follows = unused.search(text.removeprefix(start)) if text.startswith(start) else None
        if follows:
            tried.thrown.append(start + follows[0].strip("."))
        elif known or _is_figure(text, named, start):
            tried.thrown.append(part)
        else:
            tried.left.append(text)
    tried.thrown = sorted(set(tried.thrown))
    if not missing:
        counted = {own: named.get(start + n, torch.tensor(0)) for own, n in theirs.items()}
        tried.state, shapes = imported(counted, name), _shapes(name)
        tried.shapes = [
            f"{key.removeprefix('trunk.')} {list(value.shape)} for {list(shapes[key])}"
            for key, value in tried.state.items()
            if value.shape != shapes[key]
        ]
    return tried


def _ways(name: str) -> tuple[Callable[[str], str], ...]:
    return getattr(network(name), "NAMES", ())


def _leading(text: str) -> list[str]:
    """What may stand before a backbone's name: "", and the known words at the beginning, one more each."""
    found, start = [""], ""
    for word in text.split(".")[:-1]:
        if word not in AROUND:
            break
        start += f"{word}."
        found.append(start)
    return found


def _known(start: str) -> bool:
    return all(word in AROUND for word in start.split(".")[:-1])


def _partner(start: str) -> str | None:
    """The beginning under which the other one of a pair of networks would be, where this is the one to leave."""
    words = start.split(".")
    first = next((place for place, word in enumerate(words) if word in PAIRS), None)
    return None if first is None else ".".join([*words[:first], PAIRS[words[first]], *words[first + 1 :]])


def _thrown_away(text: str, start: str, parts: set[str], colour: bool) -> tuple[str, bool]:
    """(the beginning of a name that no parameter took, whether that is known to be thrown away)"""
    words, before = text.split("."), start.split(".")[:-1]
    same = next((n for n, (a, b) in enumerate(zip(words, before, strict=False)) if a != b), len(before))
    inside = same == len(before)
    part = words[min(same, len(words) - 1)]
    known = bool(THROWN_AWAY.fullmatch(part)) or (part == "sobel" and not colour)
    # The other network of a pair, and the normalisation of Barlow Twins' loss.
    known |= not inside and part in (*PAIRS, "bn")
    return ".".join(words[: same + 1]), known and not (inside and part in parts)


def _is_figure(text: str, named: Mapping[str, torch.Tensor], start: str) -> bool:
    """A number beside the dictionary of the weights, such as best_acc1."""
    return bool(start) and "." not in text and not named[text].dim()


def _without_wrappers(content: Mapping[str, torch.Tensor], source: Source) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for text, value in content.items():
        short = ".".join(word for word in text.split(".") if word not in WRAPPERS)
        if short in found:
            raise source.refuse(f"{short} is there twice, once more as {text}", "save the one that is meant alone")
        found[short] = value
    return found


def _below(named: Mapping[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    short = ".".join(word for word in key.split(".") if word not in WRAPPERS)
    start = f"{short}." if short else ""
    inner = {text.removeprefix(start): value for text, value in named.items() if text.startswith(start)}
    if not inner:
        known = ", ".join(dict.fromkeys(text.partition(".")[0] for text in named))
        raise InputError.of("key", key, "nothing of the file is called so", f"it has: {known[:200]}")
    return inner


def _check_colours(named: Mapping[str, torch.Tensor], found: _Try, name: str, source: Source) -> None:
    """That a Sobel backbone gets weights for what our Sobel filters give."""
    if BACKBONES[name].colour:
        return
    filters = named.get(f"{found.start}features.0.weight")
    if filters is not None and filters.shape[1] > 2 and filters[:, 2].any():
        reason = "its first convolution takes colours, ours what Sobel filters give"
        raise source.refuse(reason, "give weights that sslrun exported, or another backbone")
    theirs = next((value for text, value in named.items() if re.search(r"(^|\.)sobel\.1\.weight$", text)), None)
    if theirs is not None and not torch.equal(theirs.float(), SobelInput().kernels):
        raise source.refuse("its Sobel filters are others than ours", "give weights of another network")


def _refused(named: Mapping[str, torch.Tensor], name: str, tried: _Try, source: Source) -> InputError:
    kinds = (
        (f"of {tried.needed} missing", tried.missing),
        ("left over", tried.left),
        ("of other shapes", tried.shapes),
    )
    told = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds if names]
    nearest, _ = nearest_layout(named)
    reason = f"it holds another network than {name}: {', '.join(told)}; its layout is nearest to that of {nearest}"
    numbers = sum(value.numel() for value in named.values())
    others = (other for other, size in BACKBONES.items() if other != name and size.parameters <= numbers)
    other = next((other for other in others if any(t.fits and _known(t.start) for t in _tries(named, other))), None)
    if other and source.backbone:
        return source.refuse(reason, f"these are the weights of {other}: say {source.backbone}={other}")
    if other:
        return source.refuse(reason, f"these are the weights of {other}: give those of {name}")
    return source.refuse(reason, f"give {'another backbone=NAME or file' if source.key else 'another file'}")


def _listed(names: list[str]) -> str:
    more = "" if len(names) <= NAMED else ", ..."
    return ", ".join(sorted(names, key=_natural)[:NAMED]) + more


def _natural(text: str) -> list[tuple[int, str]]:
    """So that block 10 comes after block 9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", text)]
