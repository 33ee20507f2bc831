from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesionwise.io.bids import dseg_table
from lesionwise.io.files import read_json, write_json, write_table
from lesionwise.io.names import Entities, derivative_path
from lesionwise.io.nifti import write_volume
from lesionwise.report.folder import changes_of, rebuild_pages
from lesionwise.report.leaderboard import Leaderboard, write_leaderboard
from lesionwise.report.page import StudyPage
from lesionwise.types import InputError, Volume


def _results(
    study: StudyPage, root: Path, subject: str = "01", session: str = "M00"
) -> tuple[Path, Path]:
    """What ``segment`` leaves of the first visit of a study, and the path of its scan."""
    visit = study.visits[0]
    scan = Entities(sub=subject, ses=session)
    source = root / "raw" / f"sub-{subject}_ses-{session}_FLAIR.nii.gz"
    output = root / "out"
    write_volume(source, visit.image)

    def path(suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        return derivative_path(output, scan, suffix, extension, **stated)

    assert visit.brain is not None
    write_volume(path("mask", desc="brain"), visit.brain)
    for method, instances in visit.instances.items():
        write_volume(path("dseg", seg=method), Volume(instances.labels, instances.grid))
        table = study.lesions[study.lesions["method"] == method].drop(columns=["session", "method"])
        named = dseg_table(table["label"]).join(table.drop(columns="label").reset_index(drop=True))
        write_table(path("dseg", ".tsv", seg=method), named)
    write_json(
        path("mask", ".json", label="L"),
        {
            "Sources": [str(source)],
            "GeneratedBy": {"Name": "lesionwise", "Version": "0"},
            "Recipe": "conflunet",
            "Source": "a paper",
            "ModelHash": "0123456789abcdef",
            "Departures": ["ties: first kept"],
            "Methods": list(visit.instances),
            "Warnings": ["thick slices"],
            "Summary": {"subject": subject, "session": session, "lesions": 3, "page": "p.html"},
        },
    )
    return output, source


def test_a_page_per_scan_and_an_index(study: StudyPage, tmp_path: Path) -> None:
    _results(study, tmp_path)
    output, _ = _results(study, tmp_path, "02")
    rebuilt = rebuild_pages(output)
    assert [page.name for page in rebuilt.pages] == [
        "sub-01_ses-M00.html",
        "sub-02_ses-M00.html",
        "index.html",
    ]
    page = rebuilt.pages[0].read_text()
    assert "thick slices" in page
    assert "ties: first kept" in page
    assert page.count('data-method="offsets"') >= 3


def test_a_scan_that_is_gone_is_listed_and_the_others_go_on(
    study: StudyPage, tmp_path: Path
) -> None:
    output, source = _results(study, tmp_path)
    _results(study, tmp_path, "02")
    source.unlink()
    rebuilt = rebuild_pages(output)
    assert list(rebuilt.failures) == ["sub-01_ses-M00"]
    assert "sub-01_ses-M00" in rebuilt.pages[-1].read_text()


def _with_stage(output: Path) -> Path:
    """A picture of one stage among the results, and its path."""
    sidecar = next(output.glob("**/*_label-L_mask.json"))
    picture = output / "sub-01/ses-M00/figures/step.webp"
    picture.parent.mkdir()
    picture.write_bytes(b"RIFF")
    stage = {
        "Step": "N4()",
        "Picture": picture.relative_to(output).as_posix(),
        "Black": 1.0,
        "White": 250.0,
        "Outlined": False,
    }
    write_json(sidecar, {**read_json(sidecar), "Stages": [stage]})
    return picture


def test_pictures_of_stages_come_back(study: StudyPage, tmp_path: Path) -> None:
    output, _ = _results(study, tmp_path)
    _with_stage(output)
    page = rebuild_pages(output).pages[0].read_text()
    assert "<code>N4()</code>" in page
    assert "data:image/webp;base64,UklGRg==" in page


def test_a_picture_that_is_gone_is_a_fault(study: StudyPage, tmp_path: Path) -> None:
    output, _ = _results(study, tmp_path)
    _with_stage(output).unlink()
    with pytest.raises(InputError, match=r"step\.webp"):
        rebuild_pages(output)


def test_no_page_is_written_where_a_sidecar_says(study: StudyPage, tmp_path: Path) -> None:
    output, _ = _results(study, tmp_path)
    outside = tmp_path / "precious.html"
    outside.write_text("mine")
    sidecar = next(output.glob("**/*_label-L_mask.json"))
    about = read_json(sidecar)
    about["Summary"]["page"] = "../precious.html"
    write_json(sidecar, about)
    rebuilt = rebuild_pages(output)
    assert outside.read_text() == "mine"
    assert all(page.parent == output for page in rebuilt.pages)
    assert "../precious.html" not in rebuilt.pages[-1].read_text()


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "sub-01/../../secret"])
def test_no_picture_is_read_outside_the_folder(study: StudyPage, tmp_path: Path, name: str) -> None:
    output, _ = _results(study, tmp_path)
    (tmp_path / "secret").write_bytes(b"RIFFsecret")
    _with_stage(output)
    sidecar = next(output.glob("**/*_label-L_mask.json"))
    about = read_json(sidecar)
    about["Stages"][0]["Picture"] = name
    write_json(sidecar, about)
    with pytest.raises(InputError, match="not the name of a file inside this folder"):
        rebuild_pages(output)


def test_a_link_out_of_the_folder_is_no_picture(study: StudyPage, tmp_path: Path) -> None:
    output, _ = _results(study, tmp_path)
    (tmp_path / "secret").write_bytes(b"RIFFsecret")
    picture = _with_stage(output)
    picture.unlink()
    picture.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out of this folder"):
        rebuild_pages(output)


@pytest.mark.parametrize(
    "change",
    [{"Methods": [3]}, {"Sources": 1}, {"Sources": []}, {"Stages": [{}]}, {"Quality": [1]},
     {"Seconds": {"a": "b"}}, {"Warnings": "w"}, {"Methods": ["../x"]}],
)  # fmt: skip
def test_a_sidecar_of_another_form_is_one_line(
    study: StudyPage, tmp_path: Path, change: dict[str, object]
) -> None:
    output, _ = _results(study, tmp_path)
    sidecar = next(output.glob("**/*_label-L_mask.json"))
    write_json(sidecar, {**read_json(sidecar), **change})
    with pytest.raises(InputError) as error:
        rebuild_pages(output)
    assert "\n" not in str(error.value)


def test_a_folder_without_results_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        rebuild_pages(tmp_path)


def test_another_scan_under_the_same_name_is_a_fault(study: StudyPage, tmp_path: Path) -> None:
    output, source = _results(study, tmp_path)
    image = study.visits[0].image
    cut = image.array[:-1]
    write_volume(source, Volume(cut, type(image.grid)(cut.shape, image.grid.affine)))
    with pytest.raises(InputError, match="not the scan"):
        rebuild_pages(output)


def test_visits_are_shown_together_with_what_changed(study: StudyPage, tmp_path: Path) -> None:
    output, first = _results(study, tmp_path, session="M00")
    _, second = _results(study, tmp_path, session="M12")
    shift = np.eye(4)
    shift[0, 3] = 5
    write_json(
        output / "compare.json",
        {
            "Sources": [str(first), str(second)],
            "FirstVisitToVisitMm": [np.eye(4).tolist(), shift.tolist()],
        },
    )
    main = study.lesions.assign(state="baseline", lineage=study.lesions["label"])
    write_table(
        output / "lesions.tsv",
        pd.concat([main, main.assign(session="M12", state="stable")]),
    )
    write_table(
        output / "lineages.tsv",
        pd.DataFrame(
            {
                "lineage": [1, 1],
                "visit": ["M00", "M12"],
                "label": [3, 3],
                "state": ["baseline", "growing"],
                "volume_mm3": [480.0, 500.0],
                "parents": ["", "3"],
                "confidence": [np.nan, 0.9],
                "note": ["", ""],
            }
        ),
    )
    page = rebuild_pages(output).pages[-1].read_text()
    assert 'id="canvas-1"' in page
    assert "1 enlarging lesion; none new, shrinking or disappeared" in page
    assert "<span>+20 mm³</span>" in page


def test_known_lesions_come_back(study: StudyPage, tmp_path: Path) -> None:
    sources = []
    for session in ("M00", "M12"):
        output, source = _results(study, tmp_path, session=session)
        sources.append(str(source))
        known = study.visits[0].instances["cc"]
        scan = Entities(sub="01", ses=session)
        write_volume(
            derivative_path(output, scan, "dseg", seg="truth"), Volume(known.labels, known.grid)
        )
        table = pd.DataFrame({"volume_mm3": [480.0, 1680.0], "location": "juxtacortical"})
        write_table(
            derivative_path(output, scan, "dseg", ".tsv", seg="truth"),
            dseg_table([3, 7]).join(table),
        )
    compared = {"Sources": sources, "FirstVisitToVisitMm": [np.eye(4).tolist()] * 2}
    write_table(output / "lesions.tsv", study.lesions)
    columns = ["lineage", "visit", "label", "state", "volume_mm3", "parents", "confidence", "note"]
    write_table(output / "lineages.tsv", pd.DataFrame(columns=columns))
    write_json(output / "compare.json", {**compared, "Truth": True})
    page = rebuild_pages(output).pages[-1].read_text()
    assert page.count('data-method="truth"') == 4
    write_json(output / "compare.json", {**compared, "Truth": False})
    page = rebuild_pages(output).pages[-1].read_text()
    assert 'data-method="truth"' not in page


def test_the_page_of_a_leaderboard_comes_back(tmp_path: Path) -> None:
    scores = pd.DataFrame({"recipe": ["a", "b"], "case": ["01", "01"], "dsc": [0.5, 0.6]})
    page = write_leaderboard(Leaderboard("Board", scores, ("dsc",)), tmp_path)
    before = page.read_bytes()
    page.unlink()
    assert rebuild_pages(tmp_path).pages == (page,)
    assert page.read_bytes() == before


def test_changes_add_up_the_lesions_that_merged() -> None:
    tracks = pd.DataFrame(
        {
            "track": [1, 2, 1, 3],
            "session": ["a", "a", "b", "b"],
            "label": [4, 5, 1, 0],
            "state": ["baseline", "baseline", "merged", "disappeared"],
            "volume_mm3": [10.0, 20.0, 33.0, np.nan],
            "parents": ["", "", "4,5", "5"],
            "confidence": [np.nan, np.nan, 0.8, 0.7],
            "note": ["", "", "", None],
        }
    )
    found = changes_of(tracks, "a", "b")
    assert found["baseline_mm3"].tolist() == [30.0, 20.0]
    assert found["followup"].tolist() == ["1", ""]
    assert found["baseline"].tolist() == ["4, 5", "5"]


def test_what_changed_comes_first_with_its_place_and_the_evidence() -> None:
    tracks = pd.DataFrame(
        {
            "track": [1, 1, 2, 3],
            "session": ["a", "b", "b", "b"],
            "label": [4, 1, 2, 3],
            "state": ["baseline", "stable", "new", "new"],
            "volume_mm3": [100.0, 100.0, 20.0, 30.0],
            "parents": ["", "4", "", ""],
            "change_z": [np.nan, np.nan, 4.0, 9.0],
            "appeared": [np.nan, np.nan, 0.8, 1.0],
            "confidence": [np.nan, 1.0, 0.6, 0.9],
            "note": ["", "", "", ""],
        }
    )
    found = changes_of(tracks, "a", "b", {("b", 3): "juxtacortical", ("a", 4): "deep white"})
    assert found["followup"].tolist() == ["3", "2", "1"]
    assert found["location"].tolist() == ["juxtacortical", "", "deep white"]
    assert found["contrast gained or lost (%)"].tolist()[:2] == [100, 80]
    assert found["brighter by (noise)"].tolist()[:2] == [9, 4]
