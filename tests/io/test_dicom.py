import numpy as np
import pytest

from lesionwise.io.dicom import (
    check_same_person,
    choose_series,
    convert_series,
    find_series,
    read_series,
    series_grid,
    slice_files,
)
from lesionwise.io.dicom_seg import write_segmentation
from lesionwise.io.nifti import read_grid, read_volume
from lesionwise.io.space import on_grid, same_space
from lesionwise.types import Grid, InputError, Volume

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dcm2niix")

from dicom_segmentation import read_segmentation  # noqa: E402
from dicom_series import COLUMNS, PIXELS, SLICES, STEP_MM, directions, write_series  # noqa: E402


def only(folder):
    (series,) = find_series(folder)
    return series


def refused(folder, match, call=read_series):
    with pytest.raises(InputError, match=match) as caught:
        call(folder)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headers_give_the_series(tmp_path):
    series = only(write_series(tmp_path))
    assert (series.description, series.number, series.modality) == ("t2 FLAIR tra", 3, "MR")
    assert (series.echo_ms, series.inversion_ms) == (100, 2500)
    assert len(series.files) == SLICES
    assert "SECRET" not in repr(series)
    assert series.acquired == "20200304T101112"


@pytest.mark.parametrize(
    "along",
    [
        directions(),
        (np.array([0.0, 1, 0]), np.array([0.0, 0, -1])),
        (np.array([1.0, 0, 0]), np.array([0.0, 0, -1])),
        (np.array([-1.0, 0, 0]), np.array([0.0, 1, 0])),
    ],
    ids=["oblique", "sagittal", "coronal", "mirrored"],
)
def test_every_pixel_keeps_its_value_and_place(tmp_path, along):
    volume, series = read_series(write_series(tmp_path, along=along))
    grid = series_grid(series)
    assert same_space(volume.grid, grid).same
    pixels = on_grid(volume, grid, tolerance_mm=0.05).array.transpose(2, 1, 0)
    assert np.array_equal(pixels, PIXELS)
    place = np.array([-40, -30, 12]) + 4 * STEP_MM * np.cross(*along) + 5 * 0.8 * along[0]
    np.testing.assert_allclose(grid.world_mm([[5, 0, 4]])[0], place * (-1, -1, 1), atol=1e-5)


def test_files_come_in_the_order_of_slices(tmp_path):
    files = slice_files(only(write_series(tmp_path)))
    assert [path.name for path in files] == [f"S3_{n:03d}.dcm" for n in range(6, 0, -1)]


def test_a_converted_file_says_nothing_about_the_patient(tmp_path):
    series = only(write_series(tmp_path / "in"))
    convert_series(series, tmp_path / "scan.nii")
    raw = (tmp_path / "scan.nii").read_bytes()
    assert b"SECRET" not in raw
    assert b"2020" not in raw[:352]
    assert np.array_equal(
        read_volume(tmp_path / "scan.nii").array, read_series(tmp_path / "in")[0].array
    )
    convert_series(series, tmp_path / "again.nii")
    assert (tmp_path / "again.nii").read_bytes() == raw
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["again.nii", "in", "scan.nii"]
    assert read_grid(tmp_path / "scan.nii").shape in ((12, 16, 6), (16, 12, 6))


def test_the_flair_is_chosen_among_the_series_of_a_study(tmp_path):
    write_series(tmp_path / "1", "localizer", 1, PIXELS[:3], InversionTime="", EchoTime=5)
    write_series(tmp_path / "2", "t1 mprage", 2, InversionTime=900, EchoTime=3)
    write_series(tmp_path / "3", "t2 dark-fluid", 3)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_series(tmp_path)
    assert [series.number for series in found] == [1, 2, 3]
    assert choose_series(found).number == 3
    assert choose_series(found, description="MPRAGE").number == 2
    with pytest.raises(InputError, match=r"no series looks like swi \(1 'localizer'"):
        choose_series(found, description="swi")


def test_the_times_tell_a_flair_without_a_telling_name(tmp_path):
    write_series(tmp_path / "1", "axial", 1, InversionTime=900, EchoTime=3)
    write_series(tmp_path / "2", "axial", 2)
    assert choose_series(find_series(tmp_path)).number == 2


def test_the_scan_as_acquired_goes_before_what_was_made_of_it(tmp_path):
    write_series(tmp_path / "1", "FLAIR", 1)
    write_series(tmp_path / "2", "FLAIR mpr", 2, ImageType=["DERIVED", "SECONDARY"])
    write_series(tmp_path / "4", "FLAIR gd", 4, ContrastBolusAgent="Gd")
    assert choose_series(find_series(tmp_path)).number == 1


def test_two_flair_series_are_refused_until_one_is_named(tmp_path):
    write_series(tmp_path / "1", "FLAIR tra", 1)
    write_series(tmp_path / "2", "FLAIR sag", 2)
    refused(tmp_path, r"several series fit \(1 'FLAIR tra'; 2 'FLAIR sag'\)")
    assert read_series(tmp_path, description="sag")[1].number == 2


def test_other_modalities_and_other_patients_are_refused(tmp_path):
    write_series(tmp_path / "ct", Modality="CT")
    refused(tmp_path / "ct", "modality CT, but MR is needed")
    write_series(tmp_path / "two", number=1)
    write_series(tmp_path / "two", number=2, patient="SECRETB")
    refused(tmp_path / "two", "series of different patients")


def test_series_of_one_person_have_one_digest(tmp_path):
    one, two = find_series(write_series(write_series(tmp_path, number=1), number=2))
    check_same_person([one, two])
    other = only(write_series(tmp_path / "b", patient="SECRETB"))
    with pytest.raises(InputError, match=r"/b: its headers name another patient") as caught:
        check_same_person([one, other])
    assert "SECRET" not in str(caught.value)


def test_a_series_of_two_patients_is_refused(tmp_path):
    write_series(tmp_path)
    path = tmp_path / "S3_001.dcm"
    header = pydicom.dcmread(path)
    header.PatientID = "SECRET-2"
    header.save_as(path)
    refused(tmp_path, "one series holds images of different patients")


def test_a_missing_slice_is_noticed(tmp_path):
    (write_series(tmp_path) / "S3_003.dcm").unlink()
    refused(tmp_path, r"1 slices are missing \(gaps of 3 to 6 mm\)")


def test_doubled_slices_are_noticed(tmp_path):
    write_series(tmp_path, positions=[0, 3, 6, 6, 9, 12])
    refused(tmp_path, "1 slices have the position of another")


def test_uneven_slices_are_noticed(tmp_path):
    write_series(tmp_path, positions=[0, 3, 6, 9.6, 12, 15])
    refused(tmp_path, "slices are unevenly spaced")


def change(folder, **tags):
    path = folder / "S3_002.dcm"
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path)


def test_slices_that_do_not_fit_together_are_refused(tmp_path):
    write_series(tmp_path / "a")
    change(tmp_path / "a", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    refused(tmp_path / "a", "images of different orientation")
    write_series(tmp_path / "b")
    change(tmp_path / "b", PixelSpacing=[0.9, 0.9])
    refused(tmp_path / "b", "images of different pixel size")
    write_series(tmp_path / "c")
    change(tmp_path / "c", ImagePositionPatient=None)
    refused(tmp_path / "c", r"S3_002\.dcm: no ImagePositionPatient")
    write_series(tmp_path / "d")
    change(tmp_path / "d", Rows=8, PixelData=bytes(8 * COLUMNS * 2))
    refused(tmp_path / "d", "images of different sizes")


def swap(path, keyword, change):
    """Change the bytes of a value, which pydicom would not write."""
    raw = path.read_bytes()
    tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
    start = raw.index(tag.group.to_bytes(2, "little") + tag.elem.to_bytes(2, "little")) + 8
    length = int.from_bytes(raw[start - 2 : start], "little")
    value = change(raw[start : start + length])[:length].ljust(length, b" ")
    path.write_bytes(raw[:start] + value + raw[start + length :])


@pytest.mark.parametrize(
    ("keyword", "change"),
    [
        ("ImagePositionPatient", lambda value: value.replace(b"-", b",", 1)),
        ("ImagePositionPatient", lambda value: b"nan\\0\\0"),
        ("ImagePositionPatient", lambda value: b"1\\2"),
        ("ImageOrientationPatient", lambda value: b"1\\0\\0\\0\\1"),
        ("ImageOrientationPatient", lambda value: b"1\\0\\0\\1\\0\\0"),
        ("PixelSpacing", lambda value: b"0,9\\0,8"),
        ("PixelSpacing", lambda value: b"0\\0"),
    ],
)
def test_a_number_that_is_none_is_named_with_its_file(tmp_path, keyword, change):
    swap(write_series(tmp_path) / "S3_002.dcm", keyword, change)
    refused(tmp_path, rf"/S3_002\.dcm: {keyword} in its header ")


def test_numbers_that_are_not_needed_may_be_none(tmp_path):
    write_series(tmp_path, EchoTime=[10, 100])
    swap(tmp_path / "S3_002.dcm", "InstanceNumber", lambda value: b"A")
    volume, series = read_series(tmp_path)
    assert series.echo_ms is None
    assert np.array_equal(np.sort(volume.array, axis=None), np.sort(PIXELS, axis=None))


@pytest.mark.parametrize("kept", [0, 100, 140, 200, 400, 0.5, 0.9, -1])
def test_a_slice_that_is_cut_off_anywhere_is_named(tmp_path, kept):
    path = write_series(tmp_path) / "S3_006.dcm"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw)) if isinstance(kept, float) else kept])
    refused(tmp_path, r"S3_006\.dcm: (truncated|damaged)", find_series)


@pytest.mark.parametrize("kept", [-1, -9, -60, 0.9, 0.7])
def test_a_compressed_slice_that_is_cut_off_is_named(tmp_path, kept):
    for path in write_series(tmp_path).iterdir():
        header = pydicom.dcmread(path)
        header.compress(pydicom.uid.RLELossless)
        header.save_as(path)
    volume, _ = read_series(tmp_path)
    assert np.array_equal(np.sort(volume.array, axis=None), np.sort(PIXELS, axis=None))
    path = tmp_path / "S3_006.dcm"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw)) if isinstance(kept, float) else kept])
    refused(tmp_path, r"S3_006\.dcm: (truncated|damaged)", find_series)


def test_files_of_other_names_and_kinds_are_passed_over(tmp_path):
    write_series(tmp_path)
    (tmp_path / "notes.dcm.txt").write_text("1")
    (tmp_path / "README").write_text("")
    assert len(only(tmp_path).files) == SLICES


def test_images_that_each_state_a_series_of_their_own_are_one(tmp_path):
    write_series(tmp_path / "one")
    for number, path in enumerate(sorted(write_series(tmp_path / "own").iterdir())):
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = f"{header.SeriesInstanceUID[:50]}.{number}"
        header.save_as(path)
    series = only(tmp_path / "own")
    assert len(series.files) == SLICES
    own, one = (read_series(tmp_path / name)[0] for name in ("own", "one"))
    assert np.array_equal(own.array, one.array)
    assert same_space(own.grid, one.grid).same


def test_a_deflated_file_is_named_before_it_is_unpacked(tmp_path):
    for path in write_series(tmp_path).iterdir():
        header = pydicom.dcmread(path)
        header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        header.save_as(path)
    refused(tmp_path, r"S3_001\.dcm: its transfer syntax \(deflated\) cannot be read")


def test_linked_folders_are_searched(tmp_path):
    write_series(tmp_path / "store", "FLAIR", 5)
    write_series(tmp_path / "pat" / "t1", "t1 mprage", 2, InversionTime=900, EchoTime=3)
    (tmp_path / "pat" / "flair").symlink_to(tmp_path / "store")
    assert [series.number for series in find_series(tmp_path / "pat")] == [2, 5]


def test_a_name_that_differs_in_what_means_nothing_is_one_person(tmp_path):
    for path in list(write_series(tmp_path).iterdir())[::2]:
        header = pydicom.dcmread(path)
        header.PatientName = f"{header.PatientName}^ ".upper()
        header.save_as(path)
    assert len(only(tmp_path).files) == SLICES


def test_a_tilted_gantry_is_refused(tmp_path):
    write_series(tmp_path)
    for index, path in enumerate(sorted(tmp_path.iterdir())):
        header = pydicom.dcmread(path)
        header.ImagePositionPatient = [-40 + index, -30, 12 + 3 * index]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.save_as(path)
    refused(tmp_path, "shifted against each other")


def test_damaged_files_are_named(tmp_path):
    path = write_series(tmp_path) / "S3_004.dcm"
    path.write_bytes(path.read_bytes()[:-2])
    refused(tmp_path, r"S3_004\.dcm: truncated DICOM file")


def test_folders_without_series(tmp_path):
    refused(tmp_path / "missing", "no such folder")
    (tmp_path / "a.txt").write_text("text")
    refused(tmp_path, "no DICOM images")
    write_series(tmp_path / "one", pixels=PIXELS[:1])
    refused(tmp_path / "one", "a single image, not a volume")


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    import sys

    write_series(tmp_path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    refused(tmp_path, r"pydicom: not installed.*lesionwise\[dicom\]")


def lesion_map(series, labels):
    grid = series_grid(series)
    array = np.zeros(grid.shape, dtype=np.int32)
    for number, label in enumerate(labels):
        array[2 * number : 2 * number + 2, 3 + number, 1 : 3 + number] = label
    return Volume(array, grid)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("labels", [(1, 2, 3), (3, 7, 250), (70000,), ()])
def test_a_segmentation_reads_back_into_the_same_voxels(tmp_path, labels, kind):
    series = only(write_series(tmp_path / "in"))
    volume = lesion_map(series, labels)
    write_segmentation(tmp_path / "seg.dcm", volume, series, method="acls", kind=kind)
    back = read_segmentation(tmp_path / "seg.dcm", volume.grid)
    assert back.array.dtype == np.int32
    assert np.array_equal(back.array, volume.array)


def test_a_false_distance_between_slices_in_the_headers_does_no_harm(tmp_path):
    series = only(write_series(tmp_path / "in", SpacingBetweenSlices=STEP_MM + 1))
    volume = lesion_map(series, (1, 2))
    write_segmentation(tmp_path / "seg.dcm", volume, series)
    back = read_segmentation(tmp_path / "seg.dcm", volume.grid)
    assert np.array_equal(back.array, volume.array)


def test_a_mask_on_the_scan_as_read_comes_back_there(tmp_path):
    scan, series = read_series(write_series(tmp_path / "in"))
    mask = np.zeros(scan.grid.shape, dtype=bool)
    mask[1:4, 2:9, 1] = mask[5, 5, 5] = True
    write_segmentation(tmp_path / "seg.dcm", Volume(mask, scan.grid), series)
    back = read_segmentation(tmp_path / "seg.dcm", scan.grid)
    assert np.array_equal(back.array, mask)


def test_a_segmentation_names_its_source_images_and_no_person(tmp_path):
    series = only(write_series(tmp_path / "in"))
    volume = lesion_map(series, (1, 2))
    write_segmentation(tmp_path / "seg.dcm", volume, series)
    raw = (tmp_path / "seg.dcm").read_bytes()
    assert b"SECRET" not in raw
    assert b"19600102" not in raw
    assert b"20200304" not in raw
    content = pydicom.dcmread(tmp_path / "seg.dcm")
    assert content.Modality == "SEG"
    named = content.ReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == series.uid
    source = pydicom.dcmread(series.files[0])
    assert content.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert content.StudyInstanceUID == source.StudyInstanceUID
    write_segmentation(tmp_path / "kept.dcm", volume, series, keep_identity=True)
    assert pydicom.dcmread(tmp_path / "kept.dcm").PatientID == "SECRET-47110815"


def test_a_segmentation_of_other_voxels_is_refused(tmp_path):
    series = only(write_series(tmp_path / "in"))
    volume = lesion_map(series, (1,))
    other = Grid(volume.grid.shape, np.eye(4))
    with pytest.raises(InputError, match=r"seg\.dcm: spacings differ"):
        write_segmentation(tmp_path / "seg.dcm", Volume(volume.array, other), series)
    assert not (tmp_path / "seg.dcm").exists()


def write_enhanced(path):
    """The same images as one multi-frame object, its frames in reversed order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    along_i, along_j = directions()
    normal = np.cross(along_i, along_j)
    header = pydicom.Dataset()
    header.SOPClassUID = pydicom.uid.EnhancedMRImageStorage
    header.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["enhanced"])
    header.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["study"])
    header.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["series"])
    header.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=["frame"])
    header.PositionReferenceIndicator = ""
    header.Modality, header.Manufacturer = "MR", "SIEMENS"
    header.PatientName, header.PatientID = "SECRET^Name", "SECRET-47110815"
    header.PatientBirthDate = header.PatientSex = header.AccessionNumber = header.StudyID = ""
    header.StudyDate, header.StudyTime, header.ReferringPhysicianName = "20200304", "101112", ""
    header.SeriesDescription, header.SeriesNumber, header.InstanceNumber = "FLAIR 3D", 5, 1
    header.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    header.NumberOfFrames, header.Rows, header.Columns = PIXELS.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    organization = pydicom.Dataset()
    organization.DimensionOrganizationUID = pydicom.uid.generate_uid(entropy_srcs=["dimension"])
    header.DimensionOrganizationSequence = [organization]
    pointer = pydicom.Dataset()
    pointer.DimensionOrganizationUID = organization.DimensionOrganizationUID
    pointer.DimensionIndexPointer = pydicom.tag.Tag("ImagePositionPatient")
    pointer.FunctionalGroupPointer = pydicom.tag.Tag("PlanePositionSequence")
    header.DimensionIndexSequence = [pointer]
    measures, orientation, shared = (pydicom.Dataset() for _ in range(3))
    measures.PixelSpacing = [0.9, 0.8]
    measures.SliceThickness = measures.SpacingBetweenSlices = STEP_MM
    orientation.ImageOrientationPatient = [f"{v:.10g}" for v in (*along_i, *along_j)]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in reversed(range(SLICES)):
        position, content, frame = (pydicom.Dataset() for _ in range(3))
        place = np.array([-40.0, -30.0, 12.0]) + index * STEP_MM * normal
        position.ImagePositionPatient = [f"{v:.10g}" for v in place]
        content.StackID, content.InStackPositionNumber = "1", index + 1
        content.DimensionIndexValues = [index + 1]
        frame.PlanePositionSequence = [position]
        frame.FrameContentSequence = [content]
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = frames
    header.PixelData = PIXELS[::-1].tobytes()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)
    return path.parent


def test_a_multi_frame_series_gives_the_voxels_of_the_classic_one(tmp_path):
    classic, _ = read_series(write_series(tmp_path / "classic"))
    enhanced, _ = read_series(write_enhanced(tmp_path / "enhanced" / "image.dcm"))
    assert same_space(classic.grid, enhanced.grid).same
    assert np.array_equal(classic.array, enhanced.array)


def test_a_segmentation_of_a_multi_frame_series_reads_back(tmp_path):
    series = only(write_enhanced(tmp_path / "in" / "image.dcm"))
    volume = lesion_map(series, (2, 5))
    write_segmentation(tmp_path / "seg.dcm", volume, series)
    assert b"SECRET" not in (tmp_path / "seg.dcm").read_bytes()
    back = read_segmentation(tmp_path / "seg.dcm", volume.grid)
    assert np.array_equal(back.array, volume.array)


def test_a_frame_at_no_place_is_refused(tmp_path):
    write_enhanced(tmp_path / "scan" / "a.dcm")
    path = tmp_path / "scan" / "a.dcm"
    raw = path.read_bytes()
    start = raw.rindex(b"\x20\x00\x32\x00DS") + 8
    end = start + int.from_bytes(raw[start - 2 : start], "little")
    path.write_bytes(raw[:start] + b"nan\\0\\0".ljust(end - start) + raw[end:])
    refused(tmp_path / "scan", "damaged multi-frame image|do not form one regular", read_series)
