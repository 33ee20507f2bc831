import numpy as np

from lesionwise.io.bids import dseg_table, write_dataset_description
from lesionwise.io.files import read_json


def test_description(tmp_path):
    write_dataset_description(tmp_path, "lesions", SourceDatasets=[{"URL": "x"}])
    content = read_json(tmp_path / "dataset_description.json")
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"][0]["Name"] == "lesionwise"
    assert content["SourceDatasets"] == [{"URL": "x"}]


def test_table_of_instances():
    table = dseg_table(np.array([5, 0, 2, 5]))
    assert list(table["index"]) == [2, 5]
    assert list(table["mapping"]) == [7, 7]
    assert list(table["abbreviation"]) == ["L2", "L5"]
    assert table["color"].str.fullmatch("#[0-9a-f]{6}").all()
    assert list(dseg_table([]).columns) == ["index", "name", "abbreviation", "color", "mapping"]
