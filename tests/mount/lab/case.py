"""The list of tests: a function marked @test gets a mounted World and the directory of sample images."""

import inspect
from dataclasses import dataclass
from typing import Callable

CASES = {}


@dataclass
class Case:
    """One test: its function, how long it may take, and whether it wants the world mounted before it starts."""

    name: str
    run: Callable
    seconds: int
    mounted: bool
    slow: bool


def test(function=None, *, seconds=180, mounted=True, slow=False):
    """Marks a test. `mounted=False`: nothing is initialised. `slow=True`: only with --all or by name."""

    def mark(f):
        module = inspect.getmodule(f).__name__.rsplit(".", 1)[-1]
        name = f"{module}.{f.__name__}"
        CASES[name] = Case(name, f, seconds, mounted, slow)
        return f

    return mark(function) if function else mark
