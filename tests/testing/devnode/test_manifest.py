"""What a plugin may say in its manifest, and what lightningd says to the rest."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_testing.devnode.manifest import ManifestError, Option, parse_manifest
from support.devnode_plugin import MANIFEST

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_a_manifest_is_read() -> None:
    """The one that was recorded, and hooks by name alone."""
    manifest = parse_manifest({"result": {**MANIFEST, "hooks": ["custommsg"], "custommessages": [30584]}})
    assert manifest.hooks == {"custommsg"}
    assert manifest.filters is None
    assert manifest.custommessages == {30584}
    assert manifest.rpcmethods == ("seen",)
    assert manifest.dynamic
    assert manifest.wants("connect")
    assert not manifest.wants("shutdown")
    assert manifest.wants_message(30585)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"options": None}, '"result.options" is not an array'),
        ({"options": [{}]}, 'An option is missing either "name", "description" or "type"'),
        (
            {"options": [{"name": "A", "type": "string", "description": ""}]},
            'Option "name" must be lowercase alphanumeric, plus _ or -\'',
        ),
        (
            {"options": [{"name": "a", "type": "text", "description": ""}]},
            'Only "string", "int", "bool", and "flag" options are supported',
        ),
        ({"rpcmethods": 1}, '"result.rpcmethods" is not an array'),
        ({"rpcmethods": [{}]}, 'rpcmethod does not have a string "name": {}'),
        ({"rpcmethods": [{"name": "x"}]}, '"usage" not provided by plugin'),
        ({"subscriptions": 1}, '"result.subscriptions" is not an array'),
        ({"subscriptions": [1]}, "result.subscriptions[0] is not a string: '1'"),
        ({"hooks": [{}]}, "no name in hook obj {}"),
        ({"hooks": ["nosuch"]}, "Unknown hook name nosuch"),
        ({"hooks": ["custommsg", "custommsg"]}, "Registered for hook custommsg multiple times"),
        (
            {"hooks": [{"name": "peer_connected", "filters": []}]},
            "Hook peer_connected does not allow filters",
        ),
        ({"hooks": [{"name": "custommsg", "filters": 1}]}, "filters token must be an array"),
        (
            {"hooks": [{"name": "custommsg", "filters": ["x"]}]},
            "filters must be array of unsigned integers, not '\"x\"'",
        ),
        ({"custommessages": 1}, "custommessages must be array, not '1'"),
        ({"custommessages": [65536]}, "custommessages 0 not a u16: '65536'"),
        ({"nonnumericids": False}, "Plugin does not allow nonnumericids"),
        ({"dynamic": 1}, 'getmanifest: invalid "dynamic" field 1'),
    ],
)
def test_a_bad_manifest_is_refused_with_lightningds_texts(changes: dict[str, Any], why: str) -> None:
    """The texts of lightningd/plugin.c."""
    with pytest.raises(ManifestError) as raised:
        parse_manifest({"result": {**MANIFEST, **changes}})
    assert str(raised.value) == why


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*MANIFEST, "disable"], values)), st.booleans())
def test_an_arbitrary_manifest_is_read_or_refused(manifest: dict[str, Any], nested: bool) -> None:
    """A plugin may say anything."""
    with suppress(ManifestError):
        parse_manifest({"result": {**MANIFEST, **manifest}} if nested else manifest)


@pytest.mark.parametrize(("kind", "value"), [("int", "x"), ("int", "1.5"), ("bool", "maybe"), ("flag", "1")])
def test_a_value_of_the_wrong_type_is_refused(kind: str, value: object) -> None:
    """With the texts of lightningd's options."""
    with pytest.raises(ManifestError, match=f"'{value}'"):
        Option("name", kind).value(value)
