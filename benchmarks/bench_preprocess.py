"""Time, memory and quality of preprocessing on the real scans.

    python benchmarks/bench_preprocess.py DATA [--part PART] [--scan openlong01/02]
        [--subjects openlong01,openlong12]

DATA is the folder with the real scans (raw FLAIR, supplied brain masks and transforms). Parts:

stages        seconds and memory of each stage on one scan
quality       brain Dice on all six scans with skull, registration error on the three pairs and
              after known movements, and what N4 does to the spread of intensity in the middle of
              the brightness range
registration  the same errors, median and largest, beside ANTsPy's and SimpleITK's plain calls
masks         brain Dice of every way to a mask
template      how far the template lies from where the other visit puts it
heads         how far simulated heads lie from their true place in the template
bend          a known smooth field on openlong12, and the pair's correlation before and after
tissue        Dice of the classes with the truth of simulated patients, whose brain is given

Wall time is what a user waits; processor time is what the stage costs, and tells whether something
else was running.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.brain import ExtractBrain, brain_mask
from lesionwise.preprocess.geometry import CropToBrain, Resample, resample_to
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.preprocess.registration import rigid
from lesionwise.types import Study, Visit, Volume

SUBJECTS = ("openlong01", "openlong03", "openlong12")


def raw(data: Path, subject: str, session: str) -> Volume:
    name = f"sub-{subject}_ses-{session}_FLAIR.nii.gz"
    return read_volume(data / f"sub-{subject}" / f"ses-{session}" / "anat" / name)


def common_to_raw(data: Path, subject: str, session: str) -> np.ndarray:
    """World matrix (RAS mm) of the supplied ITK file, common space to raw scan."""
    folder = data / "derivatives/coregistered" / f"sub-{subject}" / f"ses-{session}" / "anat"
    text = next(folder.glob("*_from-FLAIR_to-common_*xfm.txt")).read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    numbers = np.array(fields["Parameters"].split(), dtype=float)
    center = np.array(fields["FixedParameters"].split(), dtype=float)
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + center - matrix[:3, :3] @ center
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ matrix @ flip


def supplied_brain(data: Path, subject: str, session: str, scan: Volume) -> Volume:
    folder = data / "derivatives/coregistered" / f"sub-{subject}" / "anat"
    mask = read_mask(next(folder.glob("*desc-brain_mask.nii.gz")))
    inverse = np.linalg.inv(common_to_raw(data, subject, session))
    return resample_to(mask, scan.grid, order=0, world=inverse)


def timed(name: str, work: Callable[[], Any]) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:<24}{wall:7.2f} s wall{processor:7.2f} s processor   peak {peak:.2f} GiB")
    return result


def stages(data: Path, subject: str, session: str) -> None:
    timed("imports and template", lambda: ExtractBrain()(_warm()))
    scan = timed("read", lambda: raw(data, subject, session))
    study = Study(subject, (Visit({"flair": scan}, session=session),))
    for step in (ExtractBrain(), CropToBrain(), Resample(1.0), N4(), ZScore()):
        study = timed(type(step).__name__, lambda step=step, study=study: step(study))
    prepared = study.visits[0].scans["flair"]
    timed("back to the scan's grid", lambda: resample_to(prepared, scan.grid, order=1))
    other = raw(data, subject, "01" if session == "02" else "02")
    timed("rigid registration", lambda: rigid(scan, other))


def _warm() -> Study:
    """The template itself as a scan: loads what the first scan would wait for."""
    from lesionwise.preprocess.brain import head_template

    return Study("template", (Visit({"flair": head_template()[0]}),))


def errors_mm(found: np.ndarray, true: np.ndarray, brain: Volume) -> np.ndarray:
    points = brain.grid.world_mm(np.argwhere(brain.array)[::50])
    apart = points @ (found - true)[:3, :3].T + (found - true)[:3, 3]
    return np.linalg.norm(apart, axis=1)


def movement(seed: int) -> np.ndarray:
    """Up to 8 degrees about each axis and 10 mm along it."""
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    for axis, degrees in enumerate(generator.uniform(-8, 8, 3)):
        i, j = (a for a in range(3) if a != axis)
        angle, turn = np.deg2rad(degrees), np.eye(4)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix[:3, 3] = generator.uniform(-10, 10, 3)
    return matrix


def middle_spread(values: np.ndarray) -> float:
    """Coefficient of variation between the 30th and the 90th percentile."""
    low, high = np.percentile(values, [30, 90])
    middle = values[(values > low) & (values < high)]
    return float(middle.std() / middle.mean())


def quality(data: Path, subjects: Sequence[str]) -> None:
    for subject in subjects:
        scans = {session: raw(data, subject, session) for session in ("01", "02")}
        brains = {s: supplied_brain(data, subject, s, scan) for s, scan in scans.items()}
        for number, (session, scan) in enumerate(scans.items()):
            supplied = brains[session].array
            found = brain_mask(scan).array
            dice = 2 * (found & supplied).sum() / (found.sum() + supplied.sum())
            liters = scan.grid.voxel_volume_mm3 * 1e-6
            study = Study(subject, (Visit({"flair": scan}, {}, brains[session]),))
            corrected = N4()(study).visits[0].scans["flair"].array
            true = movement(number)
            moved = resample_to(scan, scan.grid, order=1, world=np.linalg.inv(true))
            known = np.median(errors_mm(rigid(scan, moved), true, brains[session]))
            before, after = (middle_spread(a[supplied]) for a in (scan.array, corrected))
            print(
                f"{subject} {session}: brain Dice {dice:.4f} ({found.sum() * liters:.2f} l, "
                f"supplied {supplied.sum() * liters:.2f} l); spread {before:.3f} -> {after:.3f} "
                f"by N4; known movement {known:.2f} mm",
                flush=True,
            )
        true = common_to_raw(data, subject, "02") @ np.linalg.inv(
            common_to_raw(data, subject, "01")
        )
        apart = errors_mm(rigid(scans["01"], scans["02"]), true, brains["01"])
        print(
            f"{subject}: registration against the supplied transform: median "
            f"{np.median(apart):.2f} mm, largest {apart.max():.2f} mm",
            flush=True,
        )


def registration(data: Path, subjects: Sequence[str]) -> None:
    """Median and largest error in mm at brain points, and processor seconds, of three programs."""
    print("| pair | movement | ours | ANTsPy | SimpleITK |")
    print("| --- | --- | --- | --- | --- |")
    programs = (_ours, _antspy, _simpleitk)
    for subject in subjects:
        scans = {session: raw(data, subject, session) for session in ("01", "02")}
        brains = {s: supplied_brain(data, subject, s, scan) for s, scan in scans.items()}
        true = common_to_raw(data, subject, "02") @ np.linalg.inv(
            common_to_raw(data, subject, "01")
        )
        cases = [(f"{subject}", "second visit", scans["01"], scans["02"], true, brains["01"])]
        for number, (session, scan) in enumerate(scans.items()):
            known = movement(number)
            moved = resample_to(scan, scan.grid, order=1, world=np.linalg.inv(known))
            cases.append((f"{subject} {session}", "known", scan, moved, known, brains[session]))
        for name, kind, fixed, moving, matrix, brain in cases:
            cells = []
            for program in programs:
                start = time.process_time()
                apart = errors_mm(program(fixed, moving), matrix, brain)
                spent = time.process_time() - start
                cells.append(f"{np.median(apart):.2f}, {apart.max():.2f} mm ({spent:.1f} s)")
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


def _ours(fixed: Volume, moving: Volume) -> np.ndarray:
    return rigid(fixed, moving)


def _antspy(fixed: Volume, moving: Volume) -> np.ndarray:
    from lesionwise.preprocess._ants import ants_alone, to_ants

    with ants_alone("the comparison") as ants:
        found = ants.registration(to_ants(ants, fixed), to_ants(ants, moving), "Rigid")
        transform = ants.read_transform(found["fwdtransforms"][0])
        return affine_of(transform.apply_to_point)


def _simpleitk(fixed: Volume, moving: Volume) -> np.ndarray:
    import SimpleITK

    from lesionwise.preprocess.geometry import one_thread
    from lesionwise.preprocess.registration import to_image

    images = [SimpleITK.Cast(to_image(v), SimpleITK.sitkFloat32) for v in (fixed, moving)]
    with one_thread():
        return affine_of(plain_search(*images, SimpleITK.Euler3DTransform()).TransformPoint)


def plain_search(fixed: Any, moving: Any, transform: Any) -> Any:
    """SimpleITK's registration as its examples show it: Mattes, three levels, from the centers."""
    import SimpleITK

    start = SimpleITK.CenteredTransformInitializer(
        fixed, moving, transform, SimpleITK.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, seed=1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsGradientDescent(1.0, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(start)
    return method.Execute(fixed, moving)


def affine_of(place: Callable[[tuple[float, ...]], Any]) -> np.ndarray:
    """(4, 4) of a linear function of points."""
    origin = np.array(place((0.0, 0.0, 0.0)))
    ends = [np.array(place(tuple(end))) - origin for end in np.eye(3)]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.stack(ends, axis=1), origin
    return matrix


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def masks(data: Path, subjects: Sequence[str]) -> None:
    """Dice with the supplied mask and with our default, and what only our default holds."""
    from lesionwise.preprocess.brain_masks import BetBrain, OtsuBrain, TemplateMaskBrain

    options = [ExtractBrain(), TemplateMaskBrain(), OtsuBrain(), BetBrain()]
    names = [type(option).__name__ for option in options]
    print("Dice with the supplied mask (processor seconds); Dice with ExtractBrain")
    print("| scan | " + " | ".join(names) + " | only in ExtractBrain |")
    print("| --- " * (len(options) + 2) + "|")
    for subject in subjects:
        for session in ("01", "02"):
            scan = raw(data, subject, session)
            supplied = supplied_brain(data, subject, session, scan).array
            found, cells = [], []
            for option in options:
                start = time.process_time()
                study = option(Study(subject, (Visit({"flair": scan}, session=session),)))
                spent = time.process_time() - start
                found.append(study.visits[0].brain.array)
                same = dice(found[-1], supplied)
                cells.append(f"{same:.3f} ({spent:.1f} s); {dice(found[-1], found[0]):.3f}")
            cells.append(only_in(found[0], supplied, scan))
            print(f"| {subject} {session} | {' | '.join(cells)} |", flush=True)


def only_in(mask: np.ndarray, other: np.ndarray, scan: Volume) -> str:
    """Volume of a mask that another lacks, how much of it is as bright as tissue, and where.

    Tissue is brighter than 0.6 of the median that both masks share. Front and top are the foremost
    and uppermost fifth of the mask's box.
    """
    only = mask & ~other
    tissue = only & (scan.array > 0.6 * np.median(scan.array[mask & other]))
    at = [np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1))]
    front, top = (int(np.ceil(a[0] + 0.8 * (a[-1] - a[0]))) for a in at)
    parts = only[:, front:].sum(), only[:, :, top:].sum(), (only[:, front:, top:]).sum()
    share = (parts[0] + parts[1] - parts[2]) / max(only.sum(), 1)
    ml = only.sum() * scan.grid.voxel_volume_mm3 / 1000
    bright = tissue.sum() / max(only.sum(), 1)
    return f"{ml:.0f} ml, {bright:.0%} as bright as tissue, {share:.0%} in front or at the top"


def template(data: Path, subjects: Sequence[str]) -> None:
    from lesionwise.preprocess.template import template_maps, template_matrix

    maps = template_maps()
    for subject in subjects:
        found = {}
        for session in ("01", "02"):
            scan = raw(data, subject, session)
            brain = brain_mask(scan)
            start = time.process_time()
            found[session] = template_matrix(scan, brain)
            spent = time.process_time() - start
            world = np.linalg.inv(found[session])
            laid = resample_to(maps.brain, scan.grid, order=0, world=world).array
            supplied = supplied_brain(data, subject, session, scan).array
            print(
                f"{subject} {session}: Dice of the laid brain {dice(laid, brain.array):.3f} with "
                f"ours, {dice(laid, supplied):.3f} with the supplied one; {spent:.1f} s",
                flush=True,
            )
        true = common_to_raw(data, subject, "02") @ np.linalg.inv(
            common_to_raw(data, subject, "01")
        )
        apart = errors_mm(found["02"], true @ found["01"], maps.brain)
        print(
            f"{subject}: the two visits' places for the template lie {np.median(apart):.2f} mm "
            f"apart in the median, {apart.max():.2f} mm at most",
            flush=True,
        )


def heads(seeds: tuple[int, ...] = (11, 12, 13)) -> None:
    """Simulated heads know where in the template each of their voxels is: the error of that."""
    from lesionwise.preprocess.template import template_matrix
    from lesionwise.simulate.anatomy import head_grid, make_head
    from lesionwise.simulate.patient import simulate_patient

    for seed in seeds:
        scan = simulate_patient(seed).study.baseline.scans["flair"]
        found = template_matrix(Volume(scan.array.astype(np.float32), scan.grid))
        # the simulator draws the head from the first of the seed's four streams
        head = make_head(np.random.default_rng(np.random.SeedSequence(seed).spawn(4)[0]))
        voxels = np.argwhere(head.maps["brain_mm"] < 0)[::211]
        at = head_grid().world_mm(voxels)
        template_mm = head.template_mm[(slice(None), *voxels.T)].T.astype(np.float64)
        points = np.column_stack([template_mm, np.ones(len(voxels))])
        best, *_ = np.linalg.lstsq(points, at, rcond=None)
        floor = np.linalg.norm(points @ best - at, axis=1)
        # left and right of a simulated head may have changed places; the template has no side
        mirrored = points * [-1, 1, 1, 1]
        errors = [np.linalg.norm(each @ found[:3].T - at, axis=1) for each in (points, mirrored)]
        error = min(errors, key=np.median)
        print(
            f"simulated head {seed}: median error {np.median(error):.2f} mm, 95 % below "
            f"{np.percentile(error, 95):.2f}; of the best affine map {np.median(floor):.2f}, "
            f"{np.percentile(floor, 95):.2f}",
            flush=True,
        )


def bend(data: Path) -> None:
    from scipy import ndimage

    from lesionwise.preprocess.deformable import DeformToLast, warp
    from lesionwise.preprocess.geometry import respaced
    from lesionwise.preprocess.registration import move_onto, register_visits

    scans = [raw(data, "openlong12", session) for session in ("01", "02")]
    visits = tuple(Visit({"flair": s}, {}, brain_mask(s)) for s in scans)
    study = Study("openlong12", visits)
    last = study.followup
    grid = respaced(scans[1].grid, 3.0)
    generator = np.random.default_rng(0)
    field = np.stack(
        [ndimage.gaussian_filter(generator.normal(size=grid.shape), 5) for _ in range(3)]
    )
    inside = resample_to(last.brain, grid, order=0).array.astype(bool)
    field = (field * 3 / np.linalg.norm(field[:, inside], axis=0).mean()).astype(np.float32)
    bent = warp(scans[1], scans[1].grid, np.eye(4), field, grid, order=1)
    bent_brain = warp(last.brain, scans[1].grid, np.eye(4), field, grid, order=0)
    linear = move_onto(study, register_visits(study, reference=-1), reference=-1)

    def correlation(pair: Study) -> float:
        a, b = (v.scans["flair"].array[last.brain.array] for v in pair.visits)
        return float(np.corrcoef(a, b)[0, 1])

    print(f"the pair after the rigid map: correlation in the brain {correlation(linear):.4f}")
    for method in ("bspline", "syn"):
        step = DeformToLast(method, "rigid", working_mm=3.0)
        start = time.process_time()
        found, on = step.field(bent, scans[1], np.eye(4), bent_brain)
        spent = time.process_time() - start
        there = np.stack([resample_to(Volume(a, on), grid, order=1).array for a in found])
        rest = np.linalg.norm((there - field)[:, inside], axis=0)
        parts = [np.gradient(found[a], *on.spacing_mm) for a in range(3)]
        stretch = np.linalg.det(np.moveaxis(np.array(parts), (0, 1), (-2, -1)) + np.eye(3))
        print(
            f"{method}: a known field of 3 mm leaves {rest.mean():.2f} mm, 95 % below "
            f"{np.percentile(rest, 95):.2f}; least volume change {stretch.min():.2f}; "
            f"{spent:.0f} s; the pair: correlation {correlation(step(study)):.4f}",
            flush=True,
        )


def tissue(seeds: tuple[int, ...] = (21, 22, 23)) -> None:
    from lesionwise.preprocess.tissue import ClassifyTissue
    from lesionwise.simulate.patient import simulate_patient

    for seed in seeds:
        study = N4()(Resample(1.5)(simulate_patient(seed, with_skull=False).study))
        visit = study.visits[0]
        truth = visit.labels["tissue"].array
        lesions = truth == 4
        truth = np.where(lesions, 3, truth)
        for method in ("mixture", "atropos"):
            start = time.process_time()
            found = ClassifyTissue(method)(study).visits[0].labels["tissue"].array
            spent = time.process_time() - start
            scores = [dice(found == label, truth == label) for label in (1, 2, 3)]
            print(
                f"patient {seed}, {method}: Dice of fluid, gray, white "
                + ", ".join(f"{s:.3f}" for s in scores)
                + f"; {(found[lesions] == 3).mean():.0%} of lesion voxels white; {spent:.0f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parts = ("stages", "quality", "registration", "masks", "template", "heads", "bend", "tissue")
    parser.add_argument("--part", choices=parts, default="stages")
    parser.add_argument("--scan", default="openlong01/02", help="SUBJECT/SESSION for the timings")
    parser.add_argument("--subjects", default=",".join(SUBJECTS))
    arguments = parser.parse_args()
    if arguments.part == "stages":
        stages(arguments.data, *arguments.scan.split("/"))
    elif arguments.part in ("heads", "tissue"):
        {"heads": heads, "tissue": tissue}[arguments.part]()
    elif arguments.part == "bend":
        bend(arguments.data)
    else:
        work = (quality, registration, masks, template)
        part = {function.__name__: function for function in work}[arguments.part]
        part(arguments.data, arguments.subjects.split(","))


if __name__ == "__main__":
    main()
