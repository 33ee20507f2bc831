import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from lesionwise.report.display import Display
from lesionwise.report.viewer import embed_image, embed_labels, niivue
from lesionwise.types import Grid

AFFINE = np.array([[2.0, 0.1, 0, 5], [0, 2, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])
SHIFT = np.array([[1.0, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def _display(labels: np.ndarray) -> Display:
    gray = np.arange(labels.size, dtype=np.uint8).reshape(labels.shape)
    return Display(gray, {"offsets": labels}, Grid(labels.shape, AFFINE), (0, 1))


def _open(content: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content)))


def test_an_embedded_image_keeps_voxels_and_lies_in_common_space() -> None:
    display = _display(np.zeros((4, 5, 6), dtype=np.int32))
    image = _open(embed_image(display, SHIFT).content)
    assert (np.asarray(image.dataobj) == display.gray).all()
    assert np.allclose(image.affine, SHIFT @ AFFINE, atol=1e-5)


def test_embedded_labels_are_numbered_and_name_their_lesions() -> None:
    labels = np.zeros((4, 5, 6), dtype=np.int32)
    labels[0, 0, 0], labels[1, 1, 1] = 70_000, 12
    embedded = embed_labels(_display(labels), np.eye(4))["offsets"]
    shown = np.asarray(_open(embedded.content).dataobj)
    assert embedded.labels == (12, 70_000)
    assert shown.dtype == np.uint8
    assert shown[1, 1, 1] == 1
    assert shown[0, 0, 0] == 2


def test_more_lesions_than_a_byte_holds() -> None:
    labels = np.arange(343, dtype=np.int32).reshape(7, 7, 7)
    embedded = embed_labels(_display(labels), np.eye(4))["offsets"]
    assert (np.asarray(_open(embedded.content).dataobj) == labels).all()


def test_a_map_without_background_loses_no_lesion() -> None:
    labels = np.full((2, 2, 2), 3, dtype=np.int32)
    embedded = embed_labels(_display(labels), np.eye(4))["offsets"]
    assert embedded.labels == (3,)
    assert (np.asarray(_open(embedded.content).dataobj) == 1).all()


def test_no_lesions() -> None:
    embedded = embed_labels(_display(np.zeros((2, 2, 2), dtype=np.int32)), np.eye(4))["offsets"]
    assert embedded.labels == ()


def test_the_viewer_is_the_pinned_program() -> None:
    program = gzip.decompress(base64.b64decode(niivue()))
    assert b"niivue" in program[:500]
    assert len(program) == pytest.approx(2_284_381)
