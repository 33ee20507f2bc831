import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesionwise.io import nifti_header
from lesionwise.io.nifti import (
    NO_ORIENTATION,
    header_notes,
    read_grid,
    read_labels,
    read_map,
    read_mask,
    read_volume,
    write_volume,
)
from lesionwise.types import Grid, InputError, Volume

RAMP = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def save(path, array=RAMP, affine=None, sform=1, qform=1, units="mm", **header):
    """A file whose header holds exactly what is stated; codes of 0 leave an affine out."""
    affine = np.eye(4) if affine is None else affine
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units(units)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    for name, value in header.items():
        image.header[name] = value
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def patch(path, offset, content):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "scan.nii"


def test_axes_become_ras_and_the_file_grid_stays_known(file):
    save(file, affine=np.diag([-1, -2, 3, 1]))
    volume = read_volume(file)
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous
    assert np.array_equal(volume.array, RAMP[::-1, ::-1])
    assert volume.grid.spacing_mm == (1, 2, 3)
    assert np.array_equal(np.diag(volume.grid.affine), (1, 2, 3, 1))
    assert np.array_equal(read_grid(file).affine, np.diag([-1, -2, 3, 1]))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_write_on_the_file_grid_gives_the_file_back(tmp_path, axes, signs):
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[list(axes), range(3)] = np.array(signs) * (0.5, 1, 2)
    path = save(tmp_path / "a.nii.gz", affine=affine)
    write_volume(tmp_path / "b.nii.gz", read_volume(path), grid=read_grid(path), dtype=np.int16)
    written = nib.load(tmp_path / "b.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), RAMP)
    assert np.array_equal(written.affine, affine)


angle = st.floats(-0.7, 0.7)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.tuples(angle, angle, angle), st.booleans(), st.tuples(*[st.floats(0.3, 5)] * 3))
def test_oblique_geometry_survives_the_round_trip(tmp_path, angles, left_handed, spacing_mm):
    affine = np.eye(4)
    turn = np.eye(3)
    for (first, second), value in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        step = np.eye(3)
        step[[first, second], [first, second]] = np.cos(value)
        step[first, second], step[second, first] = -np.sin(value), np.sin(value)
        turn = step @ turn
    affine[:3, :3] = turn * spacing_mm
    if left_handed:
        affine[:3, 0] *= -1
    affine[:3, 3] = (-90, 30, 12)
    volume = Volume(RAMP.astype(np.float32), Grid(RAMP.shape, affine))
    write_volume(tmp_path / "a.nii", volume)
    header = nib.load(tmp_path / "a.nii").header
    assert read_grid(tmp_path / "a.nii").matches(volume.grid, 1e-3)
    assert header["qform_code"] == 2
    assert Grid(RAMP.shape, header.get_qform()).matches(volume.grid, 0.1)
    back = read_volume(tmp_path / "a.nii")
    write_volume(tmp_path / "b.nii", back, grid=volume.grid)
    assert np.array_equal(nib.load(tmp_path / "b.nii").get_fdata(), RAMP)


def test_a_sheared_grid_has_no_qform(file):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    write_volume(file, Volume(RAMP, Grid(RAMP.shape, affine)))
    header = nib.load(file).header
    assert header["qform_code"] == 0
    assert np.allclose(header.get_sform(), affine)
    assert read_grid(file).matches(Grid(RAMP.shape, affine))


def test_scaling_is_applied(file):
    patch(save(file), 112, np.array([0.5, 10], np.float32).tobytes())
    assert np.array_equal(read_volume(file).array, RAMP * 0.5 + 10)


def test_a_big_endian_file_and_the_second_format_are_read(tmp_path):
    big = nib.Nifti1Image(RAMP, np.eye(4), nib.Nifti1Header(endianness=">"))
    big.to_filename(tmp_path / "big.nii")
    nib.Nifti2Image(RAMP, np.eye(4)).to_filename(tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        assert np.array_equal(read_volume(tmp_path / name).array, RAMP)
        assert read_grid(tmp_path / name).shape == (2, 3, 4)


def test_compression_is_told_by_content_not_by_name(tmp_path):
    packed = save(tmp_path / "a.nii.gz")
    packed.rename(tmp_path / "a.nii")
    assert np.array_equal(read_volume(tmp_path / "a.nii").array, RAMP)
    assert read_grid(tmp_path / "a.nii").shape == (2, 3, 4)


def test_trailing_axes_of_one_are_dropped(file):
    save(file, RAMP[..., None])
    assert read_volume(file).array.shape == (2, 3, 4)
    assert read_grid(file).shape == (2, 3, 4)


def test_a_single_slice_is_a_volume(file):
    save(file, RAMP[:, :, :1])
    assert read_volume(file).array.shape == (2, 3, 1)


def refused(reader, path, match):
    with pytest.raises(InputError, match=match) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize("reader", [read_volume, read_labels, read_mask, read_map, read_grid])
def test_what_is_no_nifti_is_refused_by_every_reader(tmp_path, reader):
    refused(reader, tmp_path / "missing.nii", "no such file")
    refused(reader, tmp_path, "is a folder")
    (tmp_path / "empty.nii").write_bytes(b"")
    refused(reader, tmp_path / "empty.nii", "the file is empty")
    (tmp_path / "text.nii").write_text("hello" * 200)
    refused(reader, tmp_path / "text.nii", "not a NIfTI file")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"hello" * 200))
    refused(reader, tmp_path / "text.nii.gz", "not a NIfTI file")
    save(tmp_path / "four.nii", np.stack([RAMP] * 3, axis=-1))
    refused(reader, tmp_path / "four.nii", r"4 axes \(shape 2 x 3 x 4 x 3\)")
    save(tmp_path / "two.nii", RAMP[0])
    refused(reader, tmp_path / "two.nii", "2 axes")


def test_pairs_are_refused_with_a_hint(file):
    patch(save(file), 344, b"ni1\0")
    refused(read_volume, file, r"half of a \.hdr/\.img pair")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_gzip(tmp_path, share):
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(read_volume, path, "truncated or damaged gzip")


def test_a_gzip_that_unpacks_to_far_more_than_its_header_states(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    content = save(tmp_path / "a.nii").read_bytes()
    path.write_bytes(gzip.compress(content + bytes(17 * 2**20)))
    assert path.stat().st_size < 20_000
    refused(read_volume, path, "unpacks to more than 16 MiB, but its header states less")
    monkeypatch.setattr(nifti_header, "MAX_TRAILING_BYTES", 100)
    path.write_bytes(gzip.compress(content + bytes(100)))
    assert np.array_equal(read_volume(path).array, RAMP)
    path.write_bytes(gzip.compress(content) + gzip.compress(bytes(101)))
    refused(read_volume, path, "unpacks to more than")


def test_a_header_that_states_more_voxels_than_any_scan_has(tmp_path):
    path = save(tmp_path / "a.nii")
    patch(path, 42, np.array([30000, 30000, 30000], "<i2").tobytes())
    refused(read_volume, path, "30000 x 30000 x 30000 voxels")


def test_several_gzip_streams_and_zeros_behind_them_are_one_file(tmp_path):
    content = save(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:]) + bytes(512))
    assert np.array_equal(read_volume(path).array, RAMP)


def test_a_file_is_read_for_what_it_is_whatever_its_name_says(tmp_path):
    plain, packed = save(tmp_path / "a.nii"), save(tmp_path / "b.nii.gz")
    plain.rename(tmp_path / "c.nii.gz")
    packed.rename(tmp_path / "c.nii")
    for name in ("c.nii", "c.nii.gz"):
        assert np.array_equal(read_volume(tmp_path / name).array, RAMP)
        assert read_grid(tmp_path / name).shape == RAMP.shape


@pytest.mark.parametrize("offset", [np.nan, np.inf, -1, 1, 348, 352.5, 1e9])
def test_voxels_that_cannot_begin_where_the_header_says(file, offset):
    patch(save(file), 108, np.float32(offset).tobytes())
    refused(read_volume, file, r"voxels cannot begin at byte .* \(vox_offset\)")


def test_a_scaling_that_leaves_nothing_of_a_mask_is_refused(file):
    mask = (RAMP > 20).astype(np.uint8)
    for reader in (read_mask, read_labels, read_map):
        save(file, mask, scl_slope=1e-12, scl_inter=0)
        refused(reader, file, r"scaling in its header \(1e-12\) sets all its labels to 0")
        save(file, np.zeros_like(mask), scl_slope=1e-12, scl_inter=0)
        read = reader(file)
        assert not (read[0] if isinstance(read, tuple) else read).array.any()


def test_a_scaling_beyond_all_numbers_is_refused(file):
    save(file, RAMP * 1e300, scl_slope=1e30, scl_inter=0)
    refused(read_volume, file, "makes values infinite")


def test_a_header_without_orientation_is_told(file):
    assert header_notes(save(file)) == ()
    assert header_notes(save(file, sform=0)) == ()
    assert header_notes(save(file, sform=0, qform=0)) == (NO_ORIENTATION,)


def test_reading_a_file_without_orientation_is_logged_once(tmp_path, caplog):
    lost = save(tmp_path / "lost.nii.gz", sform=0, qform=0)
    read_volume(save(tmp_path / "good.nii.gz"))
    read_volume(lost)
    read_grid(lost)
    read_volume(lost)
    assert caplog.messages == [f"{lost}: {NO_ORIENTATION}"]


def test_gzip_cut_inside_the_header(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:15])
    refused(read_grid, path, "truncated or damaged gzip")


def test_damaged_gzip(tmp_path):
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", noise)
    patch(path, path.stat().st_size // 2, b"\xff\x00\xff\x00\xff")
    refused(read_volume, path, "truncated or damaged gzip")


def test_truncated_voxels(file):
    save(file)
    file.write_bytes(file.read_bytes()[:-10])
    refused(read_volume, file, "truncated, only 38 of 48 bytes of voxels")


def test_no_voxels(file):
    patch(save(file), 42, (0).to_bytes(2, "little"))
    refused(read_volume, file, "no voxels")
    refused(read_grid, file, "no voxels")


def test_constant_and_zero_images(file):
    refused(read_volume, save(file, np.zeros((2, 2, 2), np.int16)), "every voxel is 0")
    refused(read_volume, save(file, np.full((2, 2, 2), 7, np.int16)), "every voxel is 7")


def test_nan_and_infinity_are_counted(file):
    array = RAMP.astype(np.float32)
    array[0, 0, :2] = np.nan
    array[1, 1, 1] = np.inf
    for reader in (read_volume, read_labels, read_mask, read_map):
        refused(reader, save(file, array), "3 of 24 voxels are NaN or infinite")


def test_values_beyond_float32(file):
    refused(read_volume, save(file, RAMP * 1e300), "exceed float32")


@pytest.mark.parametrize(
    "kind",
    [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])],
    ids=["complex", "rgb"],
)
def test_colors_and_complex_numbers(file, kind):
    nib.Nifti1Image(np.zeros((2, 2, 2), kind), np.eye(4)).to_filename(file)
    refused(read_volume, file, "colors or complex numbers")


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_voxel_sizes_must_be_above_zero(file, value):
    patch(save(file), 76 + 8, np.float32(value).tobytes())
    refused(read_volume, file, "must be above 0")
    refused(read_grid, file, "must be above 0")


@pytest.mark.parametrize("scale", [0.01, 80])
def test_absurd_voxel_sizes(file, scale):
    refused(read_volume, save(file, affine=np.diag([1, 1, scale, 1])), "mm are not possible")


def test_singular_affine(file):
    affine = np.eye(4)
    affine[:3, 1] = affine[:3, 0]
    save(file)
    for row in range(3):
        patch(file, 280 + 16 * row, affine[row].astype(np.float32).tobytes())
    patch(file, 252, (0).to_bytes(2, "little"))
    refused(read_volume, file, "singular")


def test_affine_with_nan(file):
    patch(save(file, qform=0), 280, np.float32("nan").tobytes())
    refused(read_volume, file, "affine holds NaN")


def test_an_affine_beyond_all_distances(file):
    patch(save(file, qform=0), 280 + 12, np.float32(1e30).tobytes())
    refused(read_volume, file, "the affine holds 1e\\+30")
    patch(save(file), 280 + 12, np.float32(1e30).tobytes())
    refused(read_volume, file, "the affine holds numbers above 1e\\+07")


def test_impossible_quaternion(file):
    patch(save(file, sform=0), 256, np.float32(3).tobytes())
    refused(read_volume, file, "malformed orientation")


@pytest.mark.parametrize(("units", "factor"), [("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
def test_other_units_become_millimeters(file, units, factor):
    affine = np.diag([2 * factor, 1 * factor, 3 * factor, 1])
    save(file, affine=affine, units=units)
    np.testing.assert_allclose(read_volume(file).grid.spacing_mm, (2, 1, 3), rtol=1e-5)


def test_a_false_unit_is_named(file):
    refused(
        read_volume,
        save(file, units="meter"),
        r"1000 x 1000 x 1000 mm are not possible \(the header says met",
    )


def two_forms(file, sform, sform_code, qform, qform_code):
    image = nib.Nifti1Image(RAMP, None)
    image.header.set_qform(qform, code=qform_code)
    image.header.set_sform(sform, code=sform_code)
    file.write_bytes(image.to_bytes())
    return file


SHIFTED = np.array([[1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_the_only_affine_holds(file):
    assert np.array_equal(read_grid(two_forms(file, SHIFTED, 0, np.eye(4), 1)).affine, np.eye(4))
    assert np.array_equal(read_grid(two_forms(file, SHIFTED, 1, np.eye(4), 0)).affine, SHIFTED)


def test_without_any_affine_the_axes_are_taken_as_ras(file):
    affine = np.diag([2.0, 1, 3, 1])
    assert np.array_equal(read_grid(two_forms(file, affine, 0, affine, 0)).affine, affine)


def test_rounding_between_the_forms_is_no_disagreement(file):
    near = np.eye(4)
    near[0, 3] = 0.25
    assert np.array_equal(read_grid(two_forms(file, near, 1, np.eye(4), 1)).affine, near)


def test_angles_that_a_quaternion_loses_are_no_disagreement(file):
    turn = 0.0007
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:2, :2] = [[-np.cos(turn), np.sin(turn)], [-np.sin(turn), -np.cos(turn)]]
    large = np.zeros((200, 200, 200), np.uint8)
    large[0] = 1
    save(file, large, affine=affine)
    header = nib.load(file).header
    lost_mm = np.abs((header.get_qform() - header.get_sform()) @ [199, 199, 199, 1]).max()
    assert lost_mm > 0.1
    assert read_volume(file).array.shape == large.shape


def test_an_sform_in_another_space_holds(file):
    assert np.array_equal(read_grid(two_forms(file, SHIFTED, 4, np.eye(4), 1)).affine, SHIFTED)


def test_forms_of_one_space_that_disagree_are_refused(file):
    two_forms(file, SHIFTED, 1, np.eye(4), 1)
    refused(read_volume, file, "two affines disagree by up to 5 mm")
    refused(read_grid, file, "two affines disagree by up to 5 mm")


def test_forms_that_disagree_about_left_and_right_are_refused(file):
    two_forms(file, np.diag([-1.0, 1, 1, 1]), 4, np.eye(4), 1)
    refused(read_volume, file, "about left and right")


def test_a_quaternion_without_its_sign_is_read(file):
    patch(save(file, sform=0), 76, np.float32(0).tobytes())
    assert np.array_equal(read_grid(file).affine, np.eye(4))


def test_labels_from_whole_floats(file):
    labels = read_labels(save(file, RAMP.astype(np.float32)))
    assert labels.array.dtype == np.int32
    assert np.array_equal(labels.array, RAMP)


def scaled(path, array, slope):
    save(path, array)
    return patch(path, 112, np.array([slope, 0], np.float32).tobytes())


def test_labels_behind_a_scaling(file):
    labels = read_labels(scaled(file, (RAMP * 3).astype(np.uint8), 1 / 3))
    assert np.array_equal(labels.array, RAMP)
    refused(read_labels, scaled(file, RAMP.astype(np.uint8), 1 / 23), "holds fractions")


@pytest.mark.parametrize("read", [read_map, read_mask, read_labels])
def test_a_scaling_that_makes_a_fraction_of_a_mask_is_named(file, read):
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[0, 0] = 1
    refused(read, scaled(file, mask, 1 / 255), r"the scaling in its header \(0.00392157\)")
    scaled(file, mask * 255, 1 / 255)
    assert read(file)[0].array.sum() == 4 if read is read_map else read(file).array.sum() == 4


def test_a_probability_stored_as_whole_numbers_is_scaled(file):
    volume, kind = read_map(scaled(file, np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 1 / 32))
    assert kind == "probability"
    assert volume.array.max() == np.float32(23 / 32)


def test_a_scaling_that_is_no_number(file):
    patch(save(file), 112, np.array([2, np.nan], np.float32).tobytes())
    refused(read_volume, file, "bad intensity scaling")


def test_labels_above_65535_stay_as_they_are(file):
    array = np.array([[[0, 70_000, 2_147_483_647]]], np.int64)
    assert read_labels(save(file, array)).array.ravel().tolist() == [0, 70_000, 2_147_483_647]


def test_labels_that_are_refused(file):
    refused(read_labels, save(file, -RAMP), r"negative labels \(23 voxels, down to -23\)")
    refused(read_labels, save(file, RAMP / 23), "holds fractions")
    huge = np.array([[[0, 2**31]]], np.int64)
    refused(read_labels, save(file, huge), "label 2147483648 is above 2147483647")


def test_a_map_of_zeros_is_a_valid_empty_one(file):
    save(file, np.zeros((2, 2, 2), np.uint8))
    assert not read_labels(file).array.any()
    assert not read_mask(file).array.any()
    volume, kind = read_map(file)
    assert kind == "mask"
    assert not volume.array.any()


def test_a_mask_is_true_where_the_file_is_not_zero(file):
    mask = read_mask(save(file, RAMP))
    assert mask.array.dtype == np.bool_
    assert np.array_equal(mask.array, RAMP != 0)


def test_masks_that_are_refused(file):
    refused(read_mask, save(file, RAMP / 23), "threshold this probability map")
    refused(read_mask, save(file, -RAMP), "negative values")


@pytest.mark.parametrize("value", [1, 255, 7.0])
def test_a_map_with_one_value_is_a_mask(file, value):
    volume, kind = read_map(save(file, (RAMP > 5) * np.float32(value)))
    assert kind == "mask"
    assert volume.array.dtype == np.bool_
    assert np.array_equal(volume.array, RAMP > 5)


def test_a_map_in_0_to_1_is_a_probability(file):
    volume, kind = read_map(save(file, (RAMP / 23).astype(np.float64)))
    assert kind == "probability"
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, RAMP / 23, atol=1e-6)


def test_overshoot_of_interpolation_is_clipped(file):
    volume, _ = read_map(save(file, RAMP / 23 * 1.0008 - 0.0004))
    assert volume.array.min() == 0
    assert volume.array.max() == 1


def test_maps_of_another_scale_are_refused_with_a_hint(file):
    refused(read_map, save(file, RAMP.astype(np.float32) * 4.1), "divide percentages by 100")
    refused(read_map, save(file, RAMP * 11), "divide a map of 0 to 255 by 255")
    refused(read_map, save(file, RAMP - 12.5), "turn logits into probabilities")


def test_written_types_are_the_smallest_that_hold(tmp_path):
    grid = Grid((1, 1, 2), np.eye(4))
    for high, kind in ((255, "uint8"), (256, "int16"), (32768, "uint16"), (65536, "int32")):
        write_volume(tmp_path / "a.nii", Volume(np.array([[[0, high]]], np.int64), grid))
        assert nib.load(tmp_path / "a.nii").get_data_dtype() == kind
        assert read_labels(tmp_path / "a.nii").array.max() == high
    write_volume(tmp_path / "a.nii", Volume(np.array([[[-1, 3]]]), grid))
    assert nib.load(tmp_path / "a.nii").get_data_dtype() == "int16"
    write_volume(tmp_path / "a.nii", Volume(np.array([[[True, False]]]), grid))
    assert nib.load(tmp_path / "a.nii").get_data_dtype() == "uint8"
    write_volume(tmp_path / "a.nii", Volume(np.array([[[0.5, 1.0]]]), grid))
    assert nib.load(tmp_path / "a.nii").get_data_dtype() == "float32"


@pytest.mark.parametrize(
    ("values", "kind", "match"),
    [
        ([0, 256], np.uint8, "from 0 to 256 do not fit uint8"),
        ([-1, 3], np.uint16, "from -1 to 3 do not fit uint16"),
        ([0.0, 40000.0], np.int16, "do not fit int16"),
        ([0.0, 0.5], np.uint8, "fractions do not fit uint8"),
        ([0.0, 1e39], np.float32, "do not fit float32"),
        ([0.0, np.nan], None, "NaN or infinity"),
    ],
)
def test_nothing_is_written_that_does_not_fit(tmp_path, values, kind, match):
    path = tmp_path / "a.nii.gz"
    with pytest.raises(InputError, match=match):
        write_volume(path, Volume(np.array([[values]]), Grid((1, 1, 2), np.eye(4))), dtype=kind)
    assert list(tmp_path.iterdir()) == []


def test_equal_volumes_give_equal_bytes(tmp_path):
    volume = Volume(RAMP, Grid(RAMP.shape, np.eye(4)))
    write_volume(tmp_path / "a.nii.gz", volume, description="lesions")
    write_volume(tmp_path / "b.nii.gz", volume, description="lesions")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert nib.load(tmp_path / "a.nii.gz").header["descrip"] == b"lesions"


def test_the_written_header_states_millimeters(file):
    write_volume(file, Volume(RAMP, Grid(RAMP.shape, np.diag([1, 2, 3, 1]))))
    header = nib.load(file).header
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_zooms() == (1, 2, 3)
    assert (header["sform_code"], header["qform_code"]) == (2, 2)


def test_write_refuses_another_grid_and_other_names(tmp_path):
    volume = Volume(RAMP, Grid(RAMP.shape, np.eye(4)))
    with pytest.raises(InputError, match=r"a\.nii: same shape and spacing, but"):
        write_volume(tmp_path / "a.nii", volume, grid=Grid(RAMP.shape, SHIFTED))
    with pytest.raises(ValueError, match="ends in"):
        write_volume(tmp_path / "a.img", volume)
    assert list(tmp_path.iterdir()) == []


def test_real_scans_return_to_their_own_grid(shared, tmp_path):
    name = "sub-openlong03/ses-01/anat/sub-openlong03_ses-01_FLAIR.nii.gz"
    path = shared(f"data/{name}")
    volume = read_volume(path)
    assert volume.grid.affine[0, 0] > 0
    write_volume(tmp_path / "a.nii.gz", volume, grid=read_grid(path), dtype=np.uint16)
    original, written = nib.load(path), nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(np.asarray(original.dataobj), np.asarray(written.dataobj))
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-4)
