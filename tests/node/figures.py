"""The figures of a run, printed as a table at its end.

Promises: rows stand in the order in which they were measured; one that is measured again is replaced. Does not judge them.
"""

from dataclasses import dataclass, field

__all__ = ["Figures"]


@dataclass
class Figures:
    """Name → value with its unit."""

    rows: dict[str, str] = field(default_factory=dict)

    def seconds(self, name: str, value: float) -> None:
        """Note a time."""
        self.rows[name] = f"{value:.1f} s"

    def note(self, name: str, value: str) -> None:
        """Note anything."""
        self.rows[name] = value

    def table(self) -> list[str]:
        """Give the lines."""
        width = max(map(len, self.rows), default=0)
        return [f"{name:<{width}}  {value}" for name, value in self.rows.items()]
