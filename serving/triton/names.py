"""The names of the models of one release in a Triton model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Names:
    """The names of one release's models: `public` is the model's name, `release` the release's id."""

    public: str
    release: str

    @property
    def candidate(self) -> str:
        """The ensemble that always runs this release, whatever the public name runs."""
        return f"{self.public}_{self.release}"

    @property
    def encode(self) -> str:
        """The model that turns raw columns into blocks."""
        return f"{self.candidate}_encode"

    @property
    def network(self) -> str:
        """The model that turns blocks into predictions."""
        return f"{self.candidate}_network"

    @property
    def router(self) -> str:
        """The model that splits requests between two releases while this one is on trial."""
        return f"{self.candidate}_canary"

    def added(self, network: str) -> str:
        """The ensemble that runs another network with this release's encode model, such as a control's."""
        return f"{self.candidate}_{network.replace(' ', '_')}"


def rename(folder: Path, old: Names, new: Names) -> None:
    """Rename all models of a repository that was written under `old` to `new`."""
    for config in folder.glob("*/config.pbtxt"):
        config.write_bytes(config.read_bytes().replace(old.candidate.encode(), new.candidate.encode()))
    for before, after in ((old.network, new.network), (old.encode, new.encode), (old.candidate, new.candidate)):
        (folder / before).rename(folder / after)
