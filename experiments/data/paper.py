"""The paper's corpus: 158.7B tokens in 23 languages. Its sources are yours to fill in.

Command:
  geex prepare --recipe experiments/data/paper.py --output data --tokenizer codegeex

The paper (arXiv 2303.17568, section 2) takes The Pile's and CodeParrot's code, and Python, Java
and C++ that it crawled from public GitHub repositories with a star or more and under 10 MB. The
crawl is not published. Put your copies below $GEEX_CORPORA (default ./corpora), or take out of
the sources what you lack. The mixture's weights are the languages' shares of the paper's tokens,
whatever yours are.
"""

import os

from geex_jax.data.recipe import Dedup, Recipe, SourceSpec
from geex_jax.languages import LANGUAGES

CORPORA = os.environ.get("GEEX_CORPORA", "corpora")


def get_recipe():
    """Returns the recipe."""
    sources = (
        # The Pile's dump: {"text": ..., "meta": {"pile_set_name": "Github"}} lines.
        SourceSpec(f"{CORPORA}/pile/*.jsonl.zst", "jsonl", "pile"),
        # CodeParrot: the code in `content`, the file's name in `path`, its licence in `license`.
        SourceSpec(f"{CORPORA}/codeparrot/*.json.gz", "jsonl", "codeparrot"),
        # Checkouts of repositories.
        SourceSpec(f"{CORPORA}/github", "tree", "github"),
    )
    return Recipe(
        sources,
        name="paper",
        stages={
            "filters": {
                "max_average_line": 100.0,
                "min_alpha": 0.40,  # letters among the characters
                "max_bytes": 100 * 1024,
                "min_bytes": 1024,
            },
            "secrets": None,  # the paper has no such stage; leave this line out to have it
        },
        dedup=Dedup(near=0.0),  # the paper speaks of no near-deduplication
        mixture={"weights": {x.name: x.corpus_tokens for x in LANGUAGES}},
    )
