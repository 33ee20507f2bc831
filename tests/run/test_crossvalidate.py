"""What a fold's training took."""

import json

from lesionwise.run.crossvalidate import trained_before_s


def test_minutes_of_every_network_of_a_run_are_added(tmp_path):
    for name, minutes in (("member-0", 1.5), ("steps/maps", 0.5)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps({"minutes": minutes}))
    assert trained_before_s(tmp_path) == 120.0


def test_a_run_without_networks_took_none(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"rows": 7}))
    assert trained_before_s(tmp_path) == 0.0
