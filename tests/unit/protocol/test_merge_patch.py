"""JSON Merge Patch, on the cases that every implementation of this project passes, and joined patches."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.protocol.merge_patch import apply_patch, join_patches

CASES = Path(__file__).parents[2] / "cases" / "patch.json"

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.none() | st.integers(0, 1), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
patches = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@pytest.mark.parametrize("case", json.loads(CASES.read_text("utf-8"))["patches"], ids=str)
def test_a_patch_changes_the_fields_that_it_names(case: dict[str, Any]):
    value = json.loads(json.dumps(case["value"]))
    assert apply_patch(value, case["patch"]) == case["result"]
    assert value == case["value"], "the original stays"


@given(values, patches, patches)
def test_a_joined_patch_has_the_effect_of_both(value: Any, former: dict[str, Any], later: dict[str, Any]):
    joined = join_patches(former, later)
    if joined is not None:
        assert apply_patch(value, joined) == apply_patch(apply_patch(value, former), later)


@given(patches, patches)
def test_patches_of_different_fields_can_be_joined(former: dict[str, Any], later: dict[str, Any]):
    if not former.keys() & later.keys():
        assert join_patches(former, later) == {**former, **later}
