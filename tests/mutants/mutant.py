"""What a mutant is."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A defect put into the library.

    Attributes:
      name: a few words with hyphens.
      defect: one sentence, and the library that shipped it or its like, where one is known.
      file: the source file, from the root of the repository.
      old: what is replaced; occurs once in the file.
      new: by what.
      tests: pytest's ids of the tests that look; at least one must fail.
      error: how the message of that failure begins, if it is no failed assertion: a mutant that
        merely crashes proves nothing.
    """

    name: str
    defect: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    error: str | None = None

    def apply(self, source: str) -> str:
        """The mutated text of the file; ValueError where the snippet does not occur just once."""
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its snippet occurs {count} times in {self.file}")
        return source.replace(self.old, self.new)
