"""The rules of the tree: each is a function of a tree's root that returns faults, "FILE:LINE: what is wrong"."""

from tests.support.architecture.dependencies import (
    circle_faults,
    import_faults,
    load_faults,
    package_version_faults,
)
from tests.support.architecture.files import kind_faults, length_faults, picture_faults, verb_faults
from tests.support.architecture.parameters import read_key_faults
from tests.support.architecture.pipeline import dependency_faults, param_faults, path_faults

RULES = [
    *(import_faults, verb_faults, kind_faults, picture_faults, load_faults),
    *(dependency_faults, package_version_faults, circle_faults, path_faults, param_faults, read_key_faults),
    length_faults,
]
