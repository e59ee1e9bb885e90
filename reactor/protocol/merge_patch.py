"""JSON Merge Patch (RFC 7396): a change of the fields that it names. PURE.

tests/cases/patch.json holds the cases that the clients and the script in Redis pass.
"""

from typing import Any


def apply_patch(value: Any, patch: Any) -> Any:
    """Return the value with a patch: its fields replace those of the value, and None removes one."""
    if not isinstance(patch, dict):
        return patch
    fields = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            fields.pop(name, None)
        else:
            fields[name] = apply_patch(fields.get(name), change)
    return fields


def join_patches(former: dict[str, Any], later: dict[str, Any]) -> dict[str, Any] | None:
    """Return one patch with the effect of both, one after the other.

    There is none, and None is returned, where the later one changes a part of what the former one replaces:
    a patch merges an object into the present one.
    """
    joined = dict(former)
    for name, change in later.items():
        if name not in former or not isinstance(change, dict):
            joined[name] = change
            continue
        earlier = former[name]
        both = join_patches(earlier, change) if isinstance(earlier, dict) else None
        if both is None:
            return None
        joined[name] = both
    return joined
