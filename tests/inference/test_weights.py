"""Weights go to a file and come back; a file that is not theirs is refused in one line."""

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from lesionwise.inference.weights import read_matching, read_weights, save_weights
from lesionwise.types import InputError


def network(seed=0, width=3):
    torch.manual_seed(seed)
    layers = nn.Sequential()
    layers.add_module("encoder", nn.Sequential(nn.Conv3d(1, width, 1), nn.BatchNorm3d(width)))
    layers.add_module("encoder2", nn.Conv3d(width, 2, 1))
    return layers


def values(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fault_of(read):
    with pytest.raises(InputError) as fault:
        read()
    assert "\n" not in str(fault.value)
    return str(fault.value)


def refusal(read):
    """The message of an InputError, or None."""
    try:
        read()
    except InputError as error:
        return str(error)
    return None


def test_weights_come_back_with_counters(tmp_path):
    kept = network(0)
    kept(torch.rand(2, 1, 2, 2, 2))
    save_weights(kept, tmp_path / "new" / "w.safetensors")
    other = network(1)
    read_weights(other, tmp_path / "new" / "w.safetensors")
    assert same(values(other), values(kept))
    assert other.encoder[1].num_batches_tracked == 1


def test_the_network_keeps_its_names_and_parts_have_a_prefix(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(nn.Linear(1, 2), path, {"critic": nn.Linear(2, 1)})
    names = {"weight", "bias", "parts.critic.weight", "parts.critic.bias"}
    assert set(load_file(str(path))) == names


def test_parts_come_back_where_they_are_asked_for(tmp_path):
    path = tmp_path / "w.safetensors"
    kept, critic, teacher = network(0), network(1), network(2)
    save_weights(kept, path, {"critic": critic, "teacher": teacher})
    alone = network(3)
    read_weights(alone, path)
    assert same(values(alone), values(kept))
    found = network(4)
    read_weights(alone, path, {"teacher": found})
    assert same(values(found), values(teacher))


def test_a_part_that_the_file_lacks_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(network(), path)
    text = fault_of(lambda: read_weights(network(), path, {"critic": nn.Linear(1, 1)}))
    assert "w.safetensors: weights of another network (has no parts.critic.bias and 1 more)" in text


def test_names_that_would_be_ambiguous_are_refused(tmp_path):
    for name in ("", "a.b"):
        with pytest.raises(ValueError, match="cannot be named"):
            save_weights(network(), tmp_path / "w", {name: nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="must not name a module parts"):
        save_weights(nn.ModuleDict({"parts": nn.Linear(1, 1)}), tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_are_written_as_float32(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    save_weights(nn.Linear(2, 2).to(dtype), path)
    assert {value.dtype for value in load_file(str(path)).values()} == {torch.float32}


def test_shared_and_permuted_tensors_are_written(tmp_path):
    tied = nn.Sequential(nn.Conv3d(2, 2, 3), nn.Conv3d(2, 2, 3)).to(
        memory_format=torch.channels_last_3d
    )
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "w.safetensors")
    other = nn.Sequential(nn.Conv3d(2, 2, 3), nn.Conv3d(2, 2, 3))
    read_weights(other, tmp_path / "w.safetensors")
    assert same(values(other), values(tied))


def test_a_link_is_replaced_and_what_it_led_to_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    link = tmp_path / "w.safetensors"
    link.symlink_to(elsewhere)
    save_weights(network(), link)
    assert elsewhere.read_text() == "mine"
    assert not link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "w.safetensors"]


def test_a_folder_in_the_way_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    text = fault_of(lambda: save_weights(network(), tmp_path / "w.safetensors"))
    assert "w.safetensors: cannot be written" in text
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_an_encoder_is_carried_over_alone(tmp_path):
    path = tmp_path / "w.safetensors"
    kept, other = network(0), network(1)
    before = values(other)
    save_weights(kept, path, {"encoder": network(2)})
    read_matching(other, path, "encoder.")
    assert same(values(other.encoder), values(kept.encoder))
    assert torch.equal(other.encoder2.weight, before["encoder2.weight"])


def test_an_encoder_that_either_side_lacks_in_part_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(nn.ModuleDict({"encoder": nn.Conv3d(1, 3, 1)}), path)
    assert "has no encoder.0.bias" in fault_of(lambda: read_matching(network(), path, "encoder."))
    smaller = nn.ModuleDict({"encoder": nn.Conv3d(1, 3, 1, bias=False)})
    assert "has also encoder.bias" in fault_of(lambda: read_matching(smaller, path, "encoder."))
    assert "no weights named body." in fault_of(lambda: read_matching(network(), path, "body."))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        assert "no such weights file" in fault_of(lambda path=path: read_weights(network(), path))


def test_weights_of_another_network_are_named_and_change_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(network(width=4), path)
    mine = network()
    before = values(mine)
    text = fault_of(lambda: read_weights(mine, path))
    assert "encoder.0.weight is 4 x 1 x 1 x 1 x 1, 3 x 1 x 1 x 1 x 1 is needed" in text
    save_weights(nn.Linear(1, 1), path)
    assert "has no encoder.0.bias and 8 more" in fault_of(lambda: read_weights(mine, path))
    assert same(values(mine), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["encoder2.bias", "encoder.1.running_var"])
def test_weights_that_are_no_numbers_are_named_and_change_nothing(tmp_path, value, name):
    path = tmp_path / "w.safetensors"
    broken = network(1)
    broken.state_dict()[name][0] = value
    save_weights(broken, path)
    mine = network()
    before = values(mine)
    text = fault_of(lambda: read_weights(mine, path))
    assert text.endswith(f"w.safetensors: {name} holds NaN or infinite weights")
    assert same(values(mine), before)


def test_weights_of_another_kind_of_number_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    whole = {n: v.long() if n == "encoder2.bias" else v for n, v in values(network()).items()}
    save_file(whole, str(path))
    text = fault_of(lambda: read_weights(network(), path))
    assert "encoder2.bias is torch.int64" in text


def file_of(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


ABSURD = {
    "empty": b"",
    "a length without a header": struct.pack("<Q", 2**63) + b"{}",
    "a header of 100 GB": struct.pack("<Q", 10**11) + b"{}",
    "a list": file_of([1]),
    "no JSON": file_of(b"{" * 50),
    "deeply nested": file_of(b'{"a":' * 20000 + b"1" + b"}" * 20000),
    "a tensor without a dtype": file_of({"weight": {"shape": [1], "data_offsets": [0, 4]}}),
    "an unknown dtype": file_of(
        {"weight": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"
    ),
    "offsets beyond the end": file_of(
        {"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ),
    "an enormous shape": file_of(
        {"weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"abcd"
    ),
    "a negative shape": file_of(
        {"weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"abcd"
    ),
    "holes": file_of(
        {"weight": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}}, b"abcdabcdabcd"
    ),
    "a pickle": b"\x80\x02}q\x00.",
}


@pytest.mark.parametrize("name", ABSURD)
def test_a_file_that_is_not_safetensors_is_named(tmp_path, name):
    path = tmp_path / "w.safetensors"
    path.write_bytes(ABSURD[name])
    text = fault_of(lambda: read_weights(nn.Linear(1, 1, bias=False), path))
    assert "w.safetensors: not a safetensors file" in text


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BOOL", "I8", "U8", "U16", "C64", "F4"])
def test_other_dtypes_are_refused_or_converted(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    size = {"C64": 8, "U16": 2}.get(dtype, 1)
    path.write_bytes(
        file_of(
            {"weight": {"dtype": dtype, "shape": [1, 1], "data_offsets": [0, size]}}, b"\1" * size
        )
    )
    text = refusal(lambda: read_weights(nn.Linear(1, 1, bias=False), path))
    if dtype.startswith("F8"):
        assert text is None
    else:
        assert "w.safetensors: " in text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(network(), path)
    return path, path.read_bytes()


def dtypes():
    return st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "C64", "", "f32"])


def entries():
    number = st.integers(-2, 2**64) | st.integers(0, 8)
    fields = {
        "dtype": dtypes(),
        "shape": st.lists(number, max_size=3),
        "data_offsets": st.lists(number, max_size=3),
    }
    return st.fixed_dictionaries(fields) | st.none() | st.text(max_size=3)


CONTENT = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=64).map(file_of),
    st.builds(
        file_of,
        st.dictionaries(
            st.sampled_from(["encoder.0.weight", "encoder.0.bias", "__metadata__", "x"]),
            entries(),
        ),
        st.binary(max_size=16),
    ),
)


@given(content=CONTENT)
@settings(deadline=None, max_examples=200)
def test_whatever_a_file_holds_it_is_refused_in_one_line(scratch, content):
    path = scratch[0].with_name("garbage")
    path.write_bytes(content)
    mine = network()
    before = values(mine)
    fault_of(lambda: read_weights(mine, path))
    assert same(values(mine), before)


@given(data=st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_a_truncated_file_is_refused(scratch, data):
    whole = scratch[1]
    path = scratch[0].with_name("truncated")
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert "not a safetensors file" in fault_of(lambda: read_weights(network(), path))


@given(place=st.integers(0, 2000), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_a_changed_byte_is_refused_or_changes_a_finite_value(scratch, place, byte):
    whole = bytearray(scratch[1])
    whole[place % len(whole)] = byte
    path = scratch[0].with_name("changed")
    path.write_bytes(bytes(whole))
    mine = network()
    before = values(mine)
    text = refusal(lambda: read_weights(mine, path))
    if text is None:
        assert all(torch.isfinite(value).all() for value in values(mine).values())
    else:
        assert "\n" not in text
        assert same(values(mine), before)
