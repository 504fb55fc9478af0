"""Classes that are only data are not made again for each run; all others are."""

from __future__ import annotations

import sys

from apps import kinds

from steporal.runtime.reloading import ModuleCode
from steporal.runtime.shared_classes import shared_classes


def test_only_classes_without_code_or_variables_of_their_own_are_shared() -> None:
    spec = kinds.__spec__
    assert spec is not None
    code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    shared = shared_classes({kinds.__name__: kinds}, {kinds.__name__: code})
    assert set(shared[kinds.__name__]) == kinds.SHARED


def test_a_module_that_is_loaded_again_has_the_shared_classes_and_its_own_others() -> None:
    name = kinds.__name__
    code = ModuleCode(["apps", name])
    del sys.modules[name]
    try:
        code.load(name)
        again = vars(sys.modules[name])
    finally:
        sys.modules[name] = sys.modules["apps"].kinds = kinds
    same = {each for each in kinds.SHARED | kinds.NOT_SHARED if again[each] is vars(kinds)[each]}
    assert same == kinds.SHARED
    assert again["Twice"].model_fields.keys() == {"second"}
