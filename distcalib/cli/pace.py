"""How fast a phase goes, and what is left of it."""

from dataclasses import dataclass


@dataclass
class Pace:
    """One phase: images per second from its first result on, so that compiling does not spoil them."""

    name: str = ""
    n_total: int = 0
    batch: int = 0
    begin: float = 0.0
    n_done: int = 0
    first: float = 0.0
    """When the first result came; 0: none has."""
    _first_done: int = 0
    rate: float = 0.0
    """Images per second."""

    def advance(self, n_done: int, n_total: int, now: float) -> None:
        """So many iterations are done, of what the phase turned out to need."""
        self.n_done, self.n_total = n_done, n_total
        if not self.first:
            self.first, self._first_done = now, n_done
        elapsed, done = now - self.first, n_done - self._first_done
        if not done:
            elapsed, done = now - self.begin, n_done
        self.rate = done * self.batch / elapsed if elapsed > 0.0 else 0.0

    @property
    def left_seconds(self) -> float | None:
        """Of this phase; None where nothing is known yet."""
        return (self.n_total - self.n_done) * self.batch / self.rate if self.rate else None

    @property
    def text(self) -> str:
        """The rate, and the time left."""
        left = self.left_seconds or 0.0
        return f"{self.rate:,.0f} images/s" + (f", {duration(left)} left" if self.n_done < self.n_total else "")


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
