"""Trains the network that finds the brain, on real and simulated heads.

    python tools/train_brain_model.py REAL THICK OUT --minutes 40 [--hold-out openlong01,openlong12]

REAL and THICK are the two folders of openly licensed scans and masks that
src/lesionwise/models/brain.md names. OUT gets the training volumes (made once, kept) and the run:
``OUT/RUN/checkpoint.pt`` every minute, from which the same call goes on. Subjects that are
held out are not trained on, and are measured at the end. ``--ship`` copies the averaged weights
into the package; ``--prepare`` only makes the training volumes.

Every step sees one head, new each time: turned, stretched, with other intensities outside the
brain or everywhere, blurred, in thick slices along any axis, cut, defaced, noisy. Simulated heads
are kept as fractions of tissues and get a new contrast each time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import ndimage
from torch.nn import functional

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.brain_network import (
    FEATURES,
    WORKING_MM,
    brain_unet,
    normalized,
    world_grid,
)
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.simulate.anatomy import HeadSettings, compose, make_head
from lesionwise.simulate.fields import smooth_field
from lesionwise.simulate.shells import CLINICAL_SHELLS
from lesionwise.types import Matrix, Volume

MODELS = Path(__file__).parents[1] / "src" / "lesionwise" / "models"
STORED_MM = 2.0
HEADS = 12
SEED = 2206
Floats = NDArray[np.float32]
Tissues = NDArray[np.uint8]

COMMON = {
    # subject: kinds of scans beside FLAIR whose brain mask lies in the common space
    "openlong01": ("FLAIR", "T1w", "T2w"),
    "openlong12": ("FLAIR", "T1w", "T2w"),
    "openlong03": ("FLAIR", "T2w"),
}
LEFT_OUT = ("openlong03",)
"""Measured but never trained on: its source mask leaves out brain."""


@dataclass(frozen=True, eq=False)
class Case:
    """One head to train on: an image, or fractions of tissues to make images of.

    Attributes:
        kind: source, silver or simulated: who made the mask.
        image: (I, J, K) float32, isotropic voxels of ``STORED_MM``, or (C, I, J, K) uint8
            fractions (255 is 1) of a simulated head.
        brain: (I, J, K) uint8 fraction.
    """

    subject: str
    kind: str
    image: Floats | Tissues
    brain: NDArray[np.uint8]


def itk_matrix(path: Path) -> Matrix:
    """World matrix (RAS mm) of an ITK affine file."""
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    numbers = np.array(fields["Parameters"].split(), dtype=float)
    center = np.array(fields["FixedParameters"].split(), dtype=float)
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + center - matrix[:3, :3] @ center
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ matrix @ flip


def stored(path: Path, scan: Volume, brain: Volume, to_brain: Matrix | None = None) -> None:
    """Keep a scan and its mask on an isotropic grid along the world's axes."""
    spacing = [max(STORED_MM, s) for s in scan.grid.spacing_mm]
    low = float(np.percentile(scan.array, 1))
    coarse = resample_to(scan, respaced(scan.grid, spacing), order=1)
    grid = world_grid(scan.grid, STORED_MM)
    image = resample_to(coarse, grid, order=1, fill=low).array
    mask = Volume(brain.array.astype(np.float32), brain.grid)
    inside = resample_to(mask, grid, order=1, world=to_brain).array
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, image=image.astype(np.float32), brain=np.rint(255 * inside).astype(np.uint8)
    )


def make_real(real: Path, thick: Path, out: Path) -> None:
    """The real heads: raw FLAIR scans, the other contrasts in the common space, thick slices."""
    for subject, kinds in COMMON.items():
        folder = real / "derivatives" / "coregistered" / f"sub-{subject}"
        brain = read_mask(next((folder / "anat").glob("*desc-brain_mask.nii.gz")))
        for session in ("01", "02"):
            anat = folder / f"ses-{session}" / "anat"
            for kind in kinds:
                path = out / f"{subject}_source_{session}{kind}.npz"
                if path.exists():
                    continue
                if kind == "FLAIR":
                    name = f"sub-{subject}_ses-{session}_FLAIR.nii.gz"
                    scan = read_volume(real / f"sub-{subject}" / f"ses-{session}" / "anat" / name)
                    to_raw = itk_matrix(next(anat.glob("*_from-FLAIR_to-common_*xfm.txt")))
                    stored(path, scan, brain, np.linalg.inv(to_raw))
                else:
                    scan = read_volume(next(anat.glob(f"*_space-common_{kind}.nii.gz")))
                    stored(path, scan, brain)
    for mask in sorted((thick / "derivatives" / "brains").rglob("*_mask.nii.gz")):
        kind = "source" if "desc-source" in mask.name else "silver"
        subject, session = mask.name.split("_")[:2]
        path = out / f"{subject.removeprefix('sub-')}_{kind}_{session.removeprefix('ses-')}.npz"
        if not path.exists():
            scan = read_volume(next((thick / subject).rglob("*_FLAIR.nii.gz")))
            stored(path, scan, read_mask(mask))


def make_simulated(out: Path, first: int = 0, step: int = 1) -> None:
    """Simulated heads as fractions of their tissues, on voxels of 2 mm."""
    for number in range(first, HEADS, step):
        path = out / f"sim{number:02d}_simulated_01.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([SEED, number])
        shrink = float(rng.uniform(0.95, 1.15))
        settings = HeadSettings(
            shrink=shrink, coarse_mm=2.8, fine_mm=1.4, shells=CLINICAL_SHELLS,
            ventricle_growth_mm=(0.0, 6.0),
        )  # fmt: skip
        head = compose(make_head(rng, settings))
        inside = head.brain.astype(np.float32)
        parts = [head.white, head.gray - head.deep_gray, head.deep_gray, head.fluid]
        parts = [part * inside for part in parts]
        parts += [((head.shells == c) & ~head.brain).astype(np.float32) for c in range(1, 9)]
        stack = torch.from_numpy(np.stack([*parts, inside]).astype(np.float32))
        small = functional.avg_pool3d(stack, 2).numpy()
        eighths = np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        part_file = path.with_suffix(f".{first}.npz")
        np.savez_compressed(part_file, image=eighths[:-1], brain=eighths[-1])
        part_file.rename(path)
        print(path.name, flush=True)


VIEWS = (((80, 96, 80), WORKING_MM), ((64, 80, 64), 3.0))
"""Shape and voxel size of training views: what inference sees, and a coarser one for less."""
COARSE_FRACTION, FINE_FROM = 0.6, 0.85
"""How many views are coarse, until this part of the training is done; then none."""
SHARES = {"source": 0.4, "silver": 0.22, "simulated": 0.38}
"""How often each kind of head is drawn."""


def read_cases(folder: Path, left_out: Sequence[str]) -> list[Case]:
    """All stored heads but those of some subjects."""
    cases = []
    for path in sorted(folder.glob("*.npz")):
        subject, kind = path.name.split("_")[:2]
        if subject in left_out or path.name.count(".") > 1:
            continue
        with np.load(path) as file:
            image, brain = file["image"], file["brain"]
        if kind != "simulated":
            image = normalized(image)
        cases.append(Case(subject, kind, image, brain))
    return cases


def draw_case(cases: Sequence[Case], rng: np.random.Generator) -> Case:
    """A head: first its kind, then a subject of it, then one of the subject's scans."""
    kinds = sorted({case.kind for case in cases})
    weights = np.array([SHARES[kind] for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    subjects = sorted({case.subject for case in cases if case.kind == kind})
    subject = subjects[rng.integers(len(subjects))]
    fitting = [case for case in cases if case.subject == subject]
    return fitting[rng.integers(len(fitting))]


def colored(fractions: Tissues, rng: np.random.Generator) -> Floats:
    """An image of a simulated head: a contrast at random, often like FLAIR, texture, lesions."""
    u = rng.uniform
    if rng.random() < 0.6:
        levels = [1.0, u(1.0, 1.4), u(0.95, 1.3), u(0.05, 0.5)]
    else:
        levels = [*u(0.4, 1.6, 3), u(0.0, 2.0)]
    fluid = levels[3] * u(0.6, 1.4)
    bone = u(0.0, 0.15) if rng.random() < 0.8 else u(0.0, 0.6)
    outer = [fluid, bone, u(0.1, 2.2), u(0.2, 3.2), u(0.15, 1.0), u(0.2, 1.8), u(0.0, 1.2)]
    levels += [*outer, levels[0]]
    shape = fractions.shape[1:]
    fields = smooth_field(rng, shape, 4, fields=2)
    broad = smooth_field(rng, shape, 14, fields=2)
    out = np.zeros(shape, dtype=np.float32)
    for channel, level in enumerate(levels):
        part = fractions[channel].astype(np.float32) * np.float32(level / 255)
        if channel > 4:  # marrow, fat and muscle are never even
            part *= np.clip(1 + 0.35 * broad[channel % 2] + 0.2 * fields[channel % 2], 0.1, 3)
        out += part
    if rng.random() < 0.5:
        spots = np.clip(2 * (fields[0] + 0.5 * broad[0] - u(1.2, 2.4)), 0, 1)
        out += spots * (fractions[0] > 160) * np.float32(u(0.1, 1.0))
    out *= 1 + np.float32(u(0, 0.08)) * fields[1]
    return out


def curve(values: Floats, rng: np.random.Generator, strength: float) -> Floats:
    """Intensities mapped by a random curve; air stays dark most of the time."""
    knots = np.linspace(0, 2, 7)
    mapped = (1 - strength) * knots + strength * rng.uniform(0, 2, 7)
    if rng.random() < 0.85:
        mapped[0] *= 0.1
    return np.interp(values, knots, mapped).astype(np.float32)


def placed(
    case: Case,
    image: Floats,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The head turned, stretched, bent and seen on the working grid: image and brain, (I, J, K)."""
    from scipy.spatial.transform import Rotation

    kind = rng.random()
    spread = 9.0 if kind < 0.65 else 28.0
    turn = Rotation.from_euler("xyz", rng.normal(0, spread, 3), degrees=True).as_matrix()
    if kind > 0.92:  # a header that names other axes
        turn = turn[rng.permutation(3)] * rng.choice([-1, 1], 3)[:, None]
    scale = np.exp(rng.normal(0, 0.08)) * np.exp(rng.normal(0, 0.04, 3))
    matrix = (turn * scale) * np.where([rng.random() < 0.5, False, False], -1, 1)
    middle = np.array([b.mean() for b in np.nonzero(case.brain > 127)])
    middle += rng.normal(0, 12, 3) / STORED_MM
    middle[2] -= rng.uniform(-5, 30) / STORED_MM
    axes = [spacing_mm / STORED_MM * (np.arange(n) - (n - 1) / 2) for n in shape]
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 3, 5, 6, 5)).astype(np.float32))
    bend = functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)[0]
    bend = bend.numpy() * np.float32(rng.uniform(0, 3.5) / STORED_MM)
    i, j, k = (a.astype(np.float32) for a in axes)
    where = np.empty((1, *shape, 3), dtype=np.float32)
    for axis, n in enumerate(case.brain.shape):
        a, b, c = matrix[axis].astype(np.float32)
        at = a * i[:, None, None] + b * j[None, :, None] + c * k[None, None, :]
        at += np.float32(middle[axis]) + bend[axis]
        where[0, ..., 2 - axis] = 2 * at / (n - 1) - 1
    source = np.stack([image, case.brain.astype(np.float32) / 255])
    found = functional.grid_sample(
        torch.from_numpy(source)[None], torch.from_numpy(where), align_corners=True
    )[0]
    return found[0], found[1]


def in_thick_slices(
    image: torch.Tensor, rng: np.random.Generator, spacing_mm: float
) -> torch.Tensor:
    """Slices of 3 to 8 mm along one axis."""
    axis = int(rng.choice(3, p=[0.2, 0.2, 0.6]))
    moved = image.movedim(axis, 0)[None, None]
    n = moved.shape[2]
    fewer = max(4, round(n * spacing_mm / rng.uniform(3, 8.5)))
    size = (fewer, *moved.shape[3:])
    thick = functional.interpolate(moved, size, mode="area")
    back = functional.interpolate(thick, moved.shape[2:], mode="trilinear", align_corners=False)
    return back[0, 0].movedim(0, axis)


def blurred(image: torch.Tensor, width: int) -> torch.Tensor:
    return functional.avg_pool3d(image[None, None], width, 1, width // 2)[0, 0]


def cut(
    x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A smaller field of view: what lies beyond one or two oblique planes is not there."""
    for _ in range(int(rng.integers(1, 3))):
        axis = int(rng.choice(3, p=[0.2, 0.2, 0.6]))
        normal = rng.normal(0, 0.08, 3)
        normal[axis] = rng.choice([-1.0, 1.0])
        at = [torch.linspace(-1, 1, n) * (n / x.shape[0]) for n in x.shape]
        height = sum(
            float(w) * a.reshape([-1 if d == axis_ else 1 for d in range(3)])
            for axis_, (w, a) in enumerate(zip(normal, at, strict=True))
        )
        kept = height < float(rng.uniform(0.05, 0.85))
        x, y = x * kept, y * kept
    return x, y


def widened(brain: torch.Tensor, by_vox: int) -> torch.Tensor:
    """The brain and what lies within a cube of so many voxels around it, bool."""
    return torch.from_numpy(ndimage.maximum_filter(brain.numpy() > 0.5, 2 * by_vox + 1))


def defaced(x: torch.Tensor, y: torch.Tensor, margin_vox: int) -> torch.Tensor:
    """What lies further in front of the brain than a margin set to 0, as defacing leaves it."""
    near = widened(y, margin_vox)
    behind = near.flip(1).cummax(1).values.flip(1)
    low = near.any(1).any(0)  # heights that hold brain
    front = behind.any(2, keepdim=True).expand(*near.shape[:2], near.shape[2]) | behind
    return x * torch.where(low[None, None, :], behind, front)


def view(
    case: Case, rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One training view: what the network sees and the brain in it, (1, 1, I, J, K) each."""
    image = case.image
    if image.ndim == 4:
        image = normalized(colored(image, rng))  # type: ignore[arg-type]
    x, y = placed(case, image, rng, shape, spacing_mm)  # type: ignore[arg-type]
    if rng.random() < 0.3:
        x = torch.from_numpy(curve(x.numpy(), rng, float(rng.uniform(0.2, 1))))
    if rng.random() < 0.12:
        x = torch.where(x > 0.08, x.max() * float(rng.uniform(0.6, 1)) - x, x).clamp_min(0)
    if rng.random() < 0.6:
        other = curve(x.numpy(), rng, 1.0) * np.exp(0.3 * smooth_field(rng, shape, 10))
        away = 1 - y
        if rng.random() < 0.7:  # the border itself stays as it was scanned
            away = (2 * blurred(away, 5) - 1).clamp(0, 1)
        x = x + away * (torch.from_numpy(other) * float(rng.uniform(0.4, 1.6)) - x)
    if rng.random() < 0.12:
        x = x * widened(y, int(rng.integers(0, 3)))
    if rng.random() < 0.3:
        x = defaced(x, y, int(rng.integers(2, 5)))
    if rng.random() < 0.55:
        x = in_thick_slices(x, rng, spacing_mm)
    if rng.random() < 0.2:
        x = blurred(x, 3)
    if rng.random() < 0.35:
        x, y = cut(x, y, rng)
    if rng.random() < 0.7:
        field = smooth_field(rng, shape, 26) * rng.uniform(0.05, 0.5)
        x = x * torch.from_numpy(np.exp(field).astype(np.float32))
    if rng.random() < 0.15:
        ghost = float(rng.uniform(0.02, 0.2))
        shift, axis = int(rng.integers(15, 50)), int(rng.integers(3))
        x = (1 - ghost) * x + ghost * torch.roll(x, shift, axis)
    if rng.random() < 0.6:
        noise = rng.standard_normal((2, *shape), dtype=np.float32) * rng.uniform(0.0, 0.12)
        one, two = torch.from_numpy(noise.astype(np.float32))
        x = torch.sqrt((x + one) ** 2 + two**2)
    x = x.clamp_min(0) ** float(np.exp(rng.normal(0, 0.25)))
    return torch.from_numpy(normalized(x.numpy()))[None, None], y[None, None]


def loss_of(logits: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice."""
    entropy = functional.binary_cross_entropy_with_logits(logits, brain)
    probability = torch.sigmoid(logits)
    both = 2 * (probability * brain).sum() + 1
    return entropy + 1 - both / (probability.sum() + brain.sum() + 1)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        minutes: of processor time, all calls together.
    """

    folder: Path
    minutes: float
    learning_rate: float = 3e-3


def train(cases: Sequence[Case], run: Run) -> None:
    """Train until the time is up; keep on from the checkpoint where there is one."""
    torch.set_num_threads(1)
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    network = brain_unet()
    averaged = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=run.learning_rate, weight_decay=1e-2)
    step, elapsed, losses = 0, 0.0, []
    checkpoint = run.folder / "checkpoint.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(kept["network"])
        averaged, step, elapsed = kept["averaged"], kept["step"], kept["elapsed"]
        optimizer.load_state_dict(kept["optimizer"])

    def save() -> None:
        temporary = checkpoint.with_suffix(".tmp")
        state = {
            "network": network.state_dict(), "averaged": averaged, "step": step,
            "elapsed": elapsed, "optimizer": optimizer.state_dict(),
        }  # fmt: skip
        torch.save(state, temporary)
        temporary.rename(checkpoint)
        save_file(averaged, run.folder / "brain.safetensors.tmp")
        (run.folder / "brain.safetensors.tmp").rename(run.folder / "brain.safetensors")

    started, saved = time.process_time() - elapsed, elapsed
    for case, rng in drawn(cases, step):
        elapsed = time.process_time() - started
        share = elapsed / (60 * run.minutes)
        if share >= 1:
            break
        rate = run.learning_rate * min(1, (step + 1) / 30) * max(1 - share, 0.003) ** 0.9
        for group in optimizer.param_groups:
            group["lr"] = rate
        coarse = rng.random() < COARSE_FRACTION and share < FINE_FROM
        x, y = view(case, rng, *VIEWS[coarse])
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x)
        loss = loss_of(logits.float(), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        decay = min(0.995, (1 + step) / (12 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                averaged[name].lerp_(value, 1 - decay)
        losses.append(float(loss.detach()))
        if step % 25 == 0:
            recent = np.mean(losses[-25:])
            print(f"step {step}  {elapsed / 60:.1f} min  loss {recent:.3f}", flush=True)
        if elapsed - saved > 60:
            saved = elapsed
            save()
    save()
    subjects = sorted({case.subject for case in cases})
    (run.folder / "run.json").write_text(
        json.dumps(
            {
                "Steps": step,
                "ProcessorMinutes": round(elapsed / 60, 1),
                "Features": FEATURES,
                "WorkingMm": WORKING_MM,
                "Subjects": subjects,
            },
            indent=1,
        )
    )


def drawn(cases: Sequence[Case], first: int) -> Iterator[tuple[Case, np.random.Generator]]:
    """Heads without end, each with its own randomness; the same at the same step."""
    step = first
    while True:
        rng = np.random.default_rng([SEED, step])
        yield draw_case(cases, rng), rng
        step += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("thick", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40, help="of processor time")
    parser.add_argument("--hold-out", default="", help="subjects: openlong01,openlong12")
    parser.add_argument("--run", default="all", help="name of the run's folder")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--ship", action="store_true")
    given = parser.parse_args()
    heads = given.out / "heads"
    make_real(given.real, given.thick, heads)
    make_simulated(heads)
    if given.prepare:
        return
    held = tuple(name for name in given.hold_out.split(",") if name)
    run = Run(given.out / given.run, given.minutes)
    train(read_cases(heads, (*held, *LEFT_OUT)), run)
    if given.ship:
        shutil.copyfile(run.folder / "brain.safetensors", MODELS / "brain.safetensors")
        shutil.copyfile(run.folder / "run.json", MODELS / "brain.json")


if __name__ == "__main__":
    main()
