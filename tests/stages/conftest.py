"""What the tests of several stages share."""

import pytest

from stages import train
from tests.support.training import ARGUMENTS, settle


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train in the folder `name`, which is made if it is missing, and return it."""

    def run(name="run", changes=None, **model):
        folder = settle(tmp_path / name, changes, model)
        monkeypatch.chdir(folder)
        train.main(*map(folder.joinpath, ARGUMENTS))
        return folder

    return run
