"""The class `Mutant`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A defect put into the library.

    Attributes:
      name: a few words with hyphens.
      defect: one sentence, with the library that shipped it or something similar, if known.
      file: path of the source file in the repository.
      old: the code to replace; occurs once in the file.
      new: the code to replace it with.
      tests: pytest ids of the tests to run; at least one must fail.
      error: how the failure's message begins, if it is not a failed assertion; by default, a mutant
        that crashes proves nothing.
    """

    name: str
    defect: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    error: str | None = None

    def apply(self, source: str) -> str:
        """The mutated source; raises ValueError unless the snippet occurs exactly once."""
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its snippet occurs {count} times in {self.file}")
        return source.replace(self.old, self.new)
