"""The primitives in English.

In phrases: {p} a predicate in the plural, {p1} in the singular, {k} and {j} constants, {a} and
{b} the names of two values, {it: ...} a function of one element, said of what stands there.
The first phrase of several is the plain one.
"""

from __future__ import annotations

from geex_jax.benchmark.embedded.operations import COUNTS, NUMBERS, OPERATIONS, TEXT, WORDS

Phrases = tuple[str, ...]

# What to do: "sort the numbers". Those not here check whether something is so.
DO: dict[str, Phrases] = {
    "numbers.apply": ("{it: each number}",),
    "numbers.total": ("add up the numbers",),
    "numbers.product": ("multiply the numbers together",),
    "numbers.largest": ("find the largest number, or 0 if there is none",),
    "numbers.smallest": ("find the smallest number, or 0 if there is none",),
    "numbers.sort": (
        "sort the numbers in ascending order",
        "sort the numbers from small to large",
    ),
    "numbers.descending": (
        "sort the numbers in descending order",
        "sort the numbers from large to small",
    ),
    "numbers.running": (
        "compute the running sums of the numbers",
        "replace each number by the sum of all numbers up to it",
    ),
    "numbers.gaps": (
        "compute the differences between neighbouring numbers",
        "subtract each number from the one after it",
    ),
    "numbers.pairwise": ("add {a} and {b} position by position, up to the end of the shorter one",),
    "int.change": ("{it: the number}",),
    "int.upto": ("list the numbers from 1 to the number", "take all numbers from 1 to the number"),
    "int.digits": ("list the digits of the number",),
    "int.divisors": ("list the divisors of the number",),
    "int.text": ("write the number as text",),
    "int.plus": ("add {b} to {a}",),
    "int.minus": ("subtract {b} from {a}",),
    "int.times": ("multiply {a} by {b}",),
    "int.larger": ("take the larger of {a} and {b}",),
    "text.change": ("{it: the text}",),
    "text.measure": ("{it: the text}",),
    "text.take": ("keep the first {k} characters of the text",),
    "text.skip": (
        "remove the first {k} characters of the text",
        "drop the first {k} characters of the text",
    ),
    "text.replace": ("replace every {k} in the text by {j}",),
    "text.split": ("split the text into words",),
    "text.tally": ("count how often each character occurs in the text",),
    "text.concat": ("append {b} to {a}",),
    "words.apply": ("{it: each word}",),
    "words.sizes": ("{it: each word}",),
    "words.sort": ("sort the words", "put the words in sorted order"),
    "words.by_length": ("sort the words by length, words of equal length in their old order",),
    "words.join": ("join the words with {k} between them",),
    "words.longest": ("find the first of the longest words, or an empty text if there is none",),
    "words.tally": ("count how often each word occurs",),
    "words.lengths": ("map each word to its length",),
    "counts.apply": ("{it: each value of the map}",),
    "counts.total": ("add up the values of the map",),
    "counts.largest": ("find the largest value of the map, or 0 if it is empty",),
    "counts.length": ("count the entries of the map",),
    "counts.keys": ("list the keys of the map in sorted order",),
    "counts.values": ("list the values of the map in ascending order",),
    "counts.best": (
        "find the key with the largest value, the first in sorted order if there are several, "
        "or an empty text if the map is empty",
    ),
}

# What comes out: "the numbers in ascending order". For those not here, what to do says it.
GIVE: dict[str, Phrases] = {
    "numbers.total": ("the sum of the numbers", "their sum"),
    "numbers.product": ("the product of the numbers", "their product"),
    "numbers.largest": ("the largest number, or 0 if there is none",),
    "numbers.smallest": ("the smallest number, or 0 if there is none",),
    "numbers.sort": ("the numbers in ascending order",),
    "numbers.descending": ("the numbers in descending order",),
    "numbers.running": ("the running sums of the numbers",),
    "numbers.gaps": ("the differences between neighbouring numbers",),
    "numbers.pairwise": (
        "the sums of {a} and {b} position by position, up to the end of the shorter one",
    ),
    "int.check": ("whether the number {p1}",),
    "int.upto": ("the numbers from 1 to the number",),
    "int.digits": ("the digits of the number",),
    "int.divisors": ("the divisors of the number",),
    "int.text": ("the number as text",),
    "int.plus": ("the sum of {a} and {b}", "{a} plus {b}"),
    "int.minus": ("{a} minus {b}",),
    "int.times": ("{a} times {b}",),
    "int.larger": ("the larger of {a} and {b}",),
    "int.exceeds": ("whether {a} is greater than {b}",),
    "text.check": ("whether the text {p1}",),
    "text.palindrome": (
        "whether the text is a palindrome",
        "whether the text reads the same backwards",
    ),
    "text.take": ("the first {k} characters of the text",),
    "text.skip": ("the text without its first {k} characters",),
    "text.split": ("the words of the text",),
    "text.tally": ("how often each character occurs in the text",),
    "text.concat": ("{a} followed by {b}",),
    "words.sort": ("the words in sorted order",),
    "words.by_length": ("the words sorted by length, words of equal length in their old order",),
    "words.longest": ("the first of the longest words, or an empty text if there is none",),
    "words.tally": ("how often each word occurs",),
    "words.lengths": ("a map from each word to its length",),
    "counts.total": ("the sum of the values of the map",),
    "counts.largest": ("the largest value of the map, or 0 if it is empty",),
    "counts.length": ("how many entries the map has",),
    "counts.keys": ("the keys of the map in sorted order",),
    "counts.values": ("the values of the map in ascending order",),
    "counts.best": (
        "the key with the largest value, the first in sorted order if there are several, "
        "or an empty text if the map is empty",
    ),
}


def _elements(kind: str, one: str, of: str) -> None:
    many = f"{one}s"
    entries = "entries of the map whose values" if kind == COUNTS else f"{many}{of} that"
    DO[f"{kind}.keep"] = (f"keep the {entries} {{p}}", f"select the {entries} {{p}}")
    GIVE[f"{kind}.keep"] = (f"the {entries} {{p}}",)
    DO[f"{kind}.count"] = (f"count the {many}{of} that {{p}}",)
    GIVE[f"{kind}.count"] = (
        f"how many {many}{of} {{p}}",
        f"the number of {many}{of} that {{p}}",
    )
    GIVE[f"{kind}.any"] = (
        f"whether any {one}{of} {{p1}}",
        f"whether at least one {one}{of} {{p1}}",
    )
    GIVE[f"{kind}.all"] = (f"whether all {many}{of} {{p}}", f"whether every {one}{of} {{p1}}")


def _lists(kind: str) -> None:
    DO[f"{kind}.length"] = (f"count the {kind}",)
    GIVE[f"{kind}.length"] = (f"how many {kind} there are", f"the number of {kind}")
    DO[f"{kind}.reverse"] = (
        f"reverse the order of the {kind}",
        f"put the {kind} in reverse order",
    )
    GIVE[f"{kind}.reverse"] = (f"the {kind} in reverse order",)
    DO[f"{kind}.distinct"] = (
        f"remove repeated {kind}",
        f"keep only the first occurrence of each of the {kind}",
    )
    GIVE[f"{kind}.distinct"] = (f"the {kind} without repetitions",)
    DO[f"{kind}.take"] = (f"keep the first {{k}} {kind}",)
    GIVE[f"{kind}.take"] = (f"the first {{k}} {kind}",)
    DO[f"{kind}.skip"] = (f"remove the first {{k}} {kind}", f"drop the first {{k}} {kind}")
    GIVE[f"{kind}.skip"] = (f"the {kind} without the first {{k}}",)
    DO[f"{kind}.alternate"] = (f"keep every second of the {kind}, starting with the first",)
    GIVE[f"{kind}.alternate"] = (f"every second of the {kind}, starting with the first",)
    DO[f"{kind}.concat"] = ("append {b} to {a}",)
    GIVE[f"{kind}.concat"] = ("{a} followed by {b}",)
    DO[f"{kind}.common"] = (f"keep the {kind} of {{a}} that are in {{b}}",)
    GIVE[f"{kind}.common"] = (f"the {kind} of {{a}} that are in {{b}}",)


_elements(NUMBERS, "number", "")
_elements(WORDS, "word", "")
_elements(TEXT, "character", " of the text")
_elements(COUNTS, "value", " of the map")
_lists(NUMBERS)
_lists(WORDS)


def says(key: str) -> bool:
    """Whether what a primitive gives has a phrase of its own."""
    return key in GIVE


def do(key: str) -> Phrases:
    """What to do."""
    return DO.get(key) or tuple(f"check {phrase}" for phrase in GIVE[key])


def give(key: str) -> Phrases:
    """What comes out."""
    return GIVE.get(key) or DO[key]


assert all(key in DO or key in GIVE for key in OPERATIONS)
