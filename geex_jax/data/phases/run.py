"""The phases in their order, over a work folder: what is done already is not done again."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

import numpy as np

from geex_jax import files
from geex_jax.data.dedup import minhash
from geex_jax.data.encode import Encoder
from geex_jax.data.journal import Journal
from geex_jax.data.phases import dedup, pack
from geex_jax.data.phases.corpus import Corpus, Listing
from geex_jax.data.phases.layout import Layout
from geex_jax.data.phases.pack import Amounts, Group
from geex_jax.data.phases.read import Reader
from geex_jax.data.runners import Result, Runner
from geex_jax.errors import GeexError

MOST_CLUSTERS, MOST_COPIES = 20, 5


class Run:
    """One run over a work folder.

    Attributes:
      read: results of the read phase, a part each (see `read.Counts`).
      resolved: what deduplication found.
      amounts: what stays, by group, licence and source.
      groups: splits and languages and their shards.
      packed: results of the pack phase, a shard each.
      seconds: CPU seconds by stage and phase, of tasks of this and earlier runs.
    """

    def __init__(self, corpus: Corpus, listing: Listing, journal: Journal, runner: Runner):
        self.corpus, self.listing, self.journal, self.runner = corpus, listing, journal, runner
        self.layout = Layout(journal.folder)
        self.seconds: collections.Counter[str] = collections.Counter()
        self.read: list[Result] = []
        self.packed: list[Result] = []
        self.groups: list[Group] = []

    def _phase(
        self,
        name: str,
        function: Callable[[int], Result],
        count: int,
        sizes: Sequence[int] | None = None,
        label: str = "",
    ) -> list[Result]:
        """Runs the tasks of a phase that an earlier run has not; returns all results by number."""
        done = self.journal.done(name)
        todo = [number for number in range(count) if number not in done]
        weights = sizes or [1e6] * count
        start = sum(weights[number] for number in done) / 1e6
        progress = files.Progress(
            label, sum(weights) / 1e6, "MB" if sizes else "tasks", start=start
        )
        for number, result in self.runner.run(function, todo, str(self.layout.folder)):
            self.journal.add(name, number, result)
            done[number] = result
            progress.update(weights[number] / 1e6)
        if sizes and todo:
            progress.close()
        for result in done.values():
            self.seconds.update(result.pop("seconds", {}))
        return [done[number] for number in range(count)]

    def read_all(self) -> None:
        """Phase 1."""
        corpus = self.corpus
        task = Reader(self.layout, corpus.sources, corpus.stages, corpus.recipe.dedup)
        self.read = self._phase("read", task, self.listing.parts, self.listing.bytes, "read")

    def deduplicate(self) -> None:
        """Phase 2. Raises GeexError if no document is left for it."""
        settings = self.corpus.recipe.dedup
        counts = [result["kept"][0] for result in self.read]
        if not sum(counts):
            raise self._nothing_left()
        buckets = 0
        if settings.exact or settings.near:
            buckets = dedup.bucket_count(sum(counts), settings)
            scatter = dedup.Scatter(self.layout, settings, buckets)
            self._phase("scatter", scatter, len(counts), label="dedup, scatter")
            gather = dedup.Gather(self.layout, settings, len(counts))
            self._phase("gather", gather, buckets, label="dedup, compare")
        self.resolved = dedup.resolve(self.layout, counts, buckets, MOST_CLUSTERS, MOST_COPIES)
        self.amounts = Amounts(self.corpus.recipe)
        for part, result in enumerate(self.read):
            fate = dedup.fate_of(self.layout, part)
            index = self.layout.index(part)
            self.amounts.add(index, fate, result["source"], result["licences"])
        self.groups = self.amounts.plan()
        if not self.groups:
            raise GeexError("no document is left: all sources weigh 0", "raise a weight")

    def pack_all(self, encoder: Encoder) -> None:
        """Phase 3."""
        self.place_all()
        sizes = [group.bytes // group.shards for group in self.groups for _ in range(group.shards)]
        recipe = self.corpus.recipe
        task = pack.Pack(self.layout, recipe, encoder, self.groups, len(self.read))
        self.packed = self._phase("pack", task, len(sizes), sizes, "tokenize and pack")

    def place_all(self) -> None:
        """The first half of phase 3, for whoever wants the documents in order."""
        sources = [result["source"] for result in self.read]
        place = pack.Place(self.layout, self.corpus.recipe, self.groups, sources)
        self._phase("place", place, len(self.read), label="place")

    def shards_of(self, group: Group) -> list[int]:
        """Returns the numbers of a group's shards that hold rows, in order."""
        numbers = range(group.first, group.first + group.shards)
        return [number for number in numbers if self.packed[number]["rows"]]

    def passed(self) -> dict[str, int]:
        """Returns what sources did not read: reason to number."""
        sums: collections.Counter[str] = collections.Counter()
        for passed in (self.listing.passed, *(result["passed"] for result in self.read)):
            for reason, (count, size) in passed.items():
                sums[reason] += count
                if reason == "files":
                    sums["bytes"] += size
        return dict(sums)

    def dropped(self) -> dict[int, dict[str, int]]:
        """Returns language (-1: none) to reason to number of what stages dropped."""
        sums: dict[int, collections.Counter[str]] = {}
        for result in self.read:
            for stage in result["stages"].values():
                for language, reasons in stage["dropped"].items():
                    mine = sums.setdefault(int(language), collections.Counter())
                    mine.update({reason: count for reason, (count, _) in reasons.items()})
        return {
            language: dict(sorted(reasons.items())) for language, reasons in sorted(sums.items())
        }

    def _nothing_left(self) -> GeexError:
        sums: collections.Counter[str] = collections.Counter()
        for reasons in self.dropped().values():
            sums.update(reasons)
        counts = ", ".join(f"{reason} {count}" for reason, count in sums.most_common())
        if not counts:
            return GeexError(f"nothing could be read in {self.corpus.where()}", "check the input")
        return GeexError(
            f"no file passed the filters ({counts})", "give more --input or relax them"
        )


def similarities(
    run: Run, first: tuple[int, int], copies: Sequence[tuple[int, int]]
) -> list[float]:
    """Returns the estimated similarity of each copy with the first of its cluster."""

    def signature(place: tuple[int, int]) -> np.ndarray:
        return run.layout.signatures(place[0])[place[1] : place[1] + 1]

    one = signature(first)[0]
    return [round(float(minhash.similarity(one, signature(copy))[0]), 4) for copy in copies]
