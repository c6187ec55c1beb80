"""The paper's corpus: 158.7B tokens in 23 languages. Its sources are yours to fill in.

Command:
  geex prepare --recipe experiments/data/paper.py --output data --tokenizer codegeex

The paper (arXiv 2303.17568, section 2.1) takes the code of The Pile and of CodeParrot, and of
public GitHub repositories it crawled: of each file only what the filters below let pass. It
does not publish the crawl. Set the three folders to your copies, or take out what you lack. The
mixture's weights are the languages' shares of its tokens (Table 1 and Figure 3), not of yours.
"""

import os

from geex_jax.data.recipe import Dedup, Recipe, SourceSpec
from geex_jax.languages import LANGUAGES

CORPORA = os.environ.get("GEEX_CORPORA", "corpora")


def get_recipe():
    """Returns the recipe."""
    sources = (
        # The Pile's dump: {"text": ..., "meta": {"pile_set_name": "Github"}} lines.
        SourceSpec(f"{CORPORA}/pile-github/*.jsonl.zst", "jsonl", "pile", options={"field": "text"}),
        # CodeParrot: Parquet (or JSON lines) with the text in `content`, the name in `path`.
        SourceSpec(f"{CORPORA}/codeparrot/*.parquet", "parquet", "codeparrot",
                   options={"field": "content"}),
        # Checkouts of repositories: 9 languages the paper crawled to supplement the other two.
        SourceSpec(f"{CORPORA}/github", "tree", "github"),
    )  # fmt: skip
    return Recipe(
        sources,
        name="paper",
        stages={
            "filters": {  # section 2.1; the alphabet ratio counts letters
                "max_average_line": 100.0,
                "min_alpha": 0.40,
                "max_bytes": 100 * 1024,
                "min_bytes": 1024,
            },
            # The paper has no such stages: its 100 million files are taken as they are.
            "licences": {"allow": ()},
        },
        dedup=Dedup(exact=True, near=0.0),
        mixture={"weights": {x.name: x.corpus_tokens for x in LANGUAGES}},
    )
