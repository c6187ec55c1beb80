"""Published results on HumanEval-X, each with where it was read. Percent.

The paper's table of generation results is not here: no copy of it could be read when this was
written, and numbers from memory are not printed.
"""

from __future__ import annotations

import dataclasses

GENERATION_SOURCE = "CodeGeeX2's README (github.com/THUDM/CodeGeeX2)"
TRANSLATION_SOURCE = "the translation figure of the CodeGeeX repository (hx_translation.png)"
AVERAGES_SOURCE = "CodeGeeX's README (github.com/THUDM/CodeGeeX)"


@dataclasses.dataclass(frozen=True)
class Model:
    """Published pass@k of generation.

    Attributes:
      name: of the model.
      scores: k -> {language: percent}.
    """

    name: str
    scores: dict[int, dict[str, float]]


_LANGUAGES = ("python", "cpp", "java", "javascript", "go", "rust")


def _model(name: str, *pass_at_1: float, **more: float) -> Model:
    scores: dict[int, dict[str, float]] = {1: dict(zip(_LANGUAGES, pass_at_1, strict=True))}
    scores |= {int(k.removeprefix("python_at_")): {"python": v} for k, v in more.items()}
    return Model(name, scores)


GENERATION = (
    _model("CodeGeeX-13B", 22.9, 17.1, 20.0, 17.6, 14.4, 4.3),
    _model("CodeGen-16B", 19.2, 18.1, 15.0, 18.4, 13.0, 1.8),
    _model("StarCoder-15B", 35.5, 28.2, 31.5, 33.2, 21.3, 17.8),
    _model(
        "CodeGeeX2-6B", 35.9, 29.3, 30.8, 32.2, 22.5, 18.1,
        python_at_10=62.6, python_at_100=88.3,
    ),
)  # fmt: skip

# Mean pass@100 over Python, C++, Java, JavaScript and Go.
AVERAGE_LANGUAGES = ("python", "cpp", "java", "javascript", "go")
AVERAGES_AT_100 = {"CodeGeeX-13B": 54.76, "CodeGen-Multi-16B": 54.39}

TRANSLATION_MODELS = {
    "I": "InCoder-6.7B",
    "G": "CodeGen-Multi-16B",
    "X": "CodeGeeX-13B",
    "F": "CodeGeeX-13B-FT",
}
TRANSLATION_K = (1, 10, 100)
# source -> model -> pass@1/@10/@100 into Python, C++, Java, JavaScript, Go.
_TRANSLATION = """
python     I - 26.11/41.00/54.25 26.74/42.66/61.20 37.05/58.85/78.91 15.69/27.57/43.67
python     G - 35.94/47.81/59.37 29.27/45.70/64.45 43.40/66.26/82.55 28.87/41.01/57.72
python     X - 26.54/43.56/56.48 25.84/41.52/59.72 23.22/47.33/65.87 9.56/23.83/33.56
python     F - 34.16/46.86/61.22 41.98/58.17/72.78 34.81/53.05/66.08 16.41/30.76/46.37
cpp        I 34.37/58.41/78.57 - 34.04/57.02/68.70 37.05/65.05/79.61 25.54/39.11/58.02
cpp        G 33.83/55.37/76.64 - 43.20/69.84/88.82 54.51/71.50/83.14 27.94/49.73/68.32
cpp        X 27.18/49.02/67.69 - 22.56/40.91/64.08 30.23/55.68/75.58 8.64/18.79/31.76
cpp        F 62.79/80.39/87.10 - 71.68/81.62/85.84 50.83/64.55/74.57 16.71/34.18/52.98
java       I 42.76/65.55/80.43 40.01/55.17/70.39 - 43.20/68.24/84.39 21.58/35.20/54.97
java       G 52.73/69.30/82.74 41.42/54.68/65.50 - 57.65/67.90/79.22 34.00/48.49/67.94
java       X 43.41/68.46/84.03 39.33/58.48/72.36 - 44.19/64.22/82.89 17.17/32.74/47.71
java       F 75.03/87.71/95.13 49.67/65.65/75.40 - 49.95/62.82/79.64 18.85/32.92/48.93
javascript I 23.18/50.47/67.26 35.47/54.48/70.71 30.67/50.90/71.03 - 25.79/42.96/61.47
javascript G 35.52/52.23/69.78 35.41/53.12/64.47 33.79/56.06/74.00 - 33.38/49.08/64.14
javascript X 31.15/54.02/72.36 30.32/51.63/69.37 24.68/48.35/69.03 - 11.91/26.39/39.81
javascript F 67.63/81.88/89.30 46.87/60.82/73.18 56.55/70.27/80.71 - 16.46/32.99/50.29
go         I 34.14/54.52/70.88 30.45/48.47/62.81 34.52/53.95/69.92 39.37/63.63/80.75 -
go         G 38.32/50.57/68.65 32.95/45.88/59.56 36.55/59.12/78.70 38.93/56.68/70.68 -
go         X 35.92/56.02/77.32 29.83/41.98/58.15 22.89/41.04/61.46 25.24/46.50/69.93 -
go         F 57.98/79.04/93.57 38.97/53.05/63.92 54.22/69.03/79.40 43.07/59.78/74.04 -
"""


PROBLEMS = 164


def translation() -> dict[str, dict[int, dict[tuple[str, str], float]]]:
    """Model -> k -> {(source, target): percent}."""
    table: dict[str, dict[int, dict[tuple[str, str], float]]] = {
        name: {k: {} for k in TRANSLATION_K} for name in TRANSLATION_MODELS.values()
    }
    for line in _TRANSLATION.split("\n")[1:-1]:
        source, model, *cells = line.split()
        for target, cell in zip(_LANGUAGES, cells, strict=False):
            if cell != "-":
                for k, value in zip(TRANSLATION_K, cell.split("/"), strict=True):
                    table[TRANSLATION_MODELS[model]][k][source, target] = float(value)
    return table
