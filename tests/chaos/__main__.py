"""`python -m tests.chaos [--rounds 50] [--short] [--only NAME ...]`: runs scenarios and prints their table."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import tempfile
from pathlib import Path

from tests.chaos import scenarios
from tests.chaos.accounts import Outcome


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--rounds", type=int, help="kills of the server")
    parser.add_argument("--short", action="store_true", help="as in CI")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[one.__name__ for one in scenarios.ALL])
    given = parser.parse_args()
    scale = scenarios.SHORT if given.short else scenarios.LONG
    if given.rounds:
        scale = dataclasses.replace(scale, rounds=given.rounds)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="realtime-chaos-") as folder:
        stores = scenarios.prepare(Path(folder))
        try:
            for scenario in scenarios.ALL:
                if not given.only or scenario.__name__ in given.only:
                    outcome = asyncio.run(scenario(stores, scale))
                    print(outcome, flush=True)
                    outcome.check()
                    outcomes.append(outcome)
        finally:
            stores.stop()
    print(f"\n| {' | '.join(Outcome.COLUMNS)} |\n| {' | '.join('---' for _ in Outcome.COLUMNS)} |")
    for outcome in outcomes:
        print(f"| {' | '.join(outcome.row)} |")


if __name__ == "__main__":
    main()
