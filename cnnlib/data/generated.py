"""Two translation tasks that are generated, not collected: dates in many forms to one form, and number words to digits.

>>> dates(count=1000).texts["test"][:3]
[('18.08.2084', '2084-08-18'), ('July 18, 2004', '2004-07-18'), ('Saturday, 12 December 1931', '1931-12-12')]
>>> number_words(count=1000).texts["test"][:3]
[('eighty', '80'), ('six thousand two hundred and seventy seven', '6277'), ('seventeen', '17')]

Both are functions of a seed. No date or number comes in two of the parts: what is held out was never an answer in training.
"""

from __future__ import annotations

import datetime

import numpy as np

from cnnlib.data.pairs import CHARACTERS, WORDS, Pairs, hold_out
from cnnlib.data.streams import GENERATE, check_seed, philox
from cnnlib.errors import ValueRangeError

HELD_OUT = 0.1  # of all pairs to test with, and as many to validate

FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1).toordinal(), datetime.date(2099, 12, 31).toordinal()
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FORMS = (
    "{day} {month} {year}",
    "{month} {day}, {year}",
    "{day}{th} of {month} {year}",
    "{weekday}, {day} {month} {year}",
    "{weekday}, {month} {day}, {year}",
    "{day} {mon} {year}",
    "{mon} {day}{th}, {year}",
    "{day:02}.{number:02}.{year}",
)

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()


def dates(count: int = 20_000, seed: int = 0) -> Pairs:
    """``3 May 2024``, ``Friday, May 3, 2024``, ``03.05.2024`` … -> ``2024-05-03``, character by character; generated.

    ``count`` different days from 1900 to 2099, each in one of eight forms; a tenth to validate and a tenth to test with.

    Raises ValueRangeError for a count that is too small to be cut in parts, or larger than the number of days.
    """
    days = LAST_DAY - FIRST_DAY + 1
    _check_count("dates", count, days)
    words = philox(check_seed(seed, "dates"), GENERATE).random_raw(days)
    pairs = []
    for day in np.argsort(words, kind="stable")[:count].tolist():
        date = datetime.date.fromordinal(FIRST_DAY + day)
        pairs.append((written_date(date, int(words[day]) % len(FORMS)), date.isoformat()))
    return Pairs("dates", hold_out(pairs, HELD_OUT), CHARACTERS, CHARACTERS)


def written_date(date: datetime.date, form: int) -> str:
    """A date as people write it, in one of eight forms.

    >>> [written_date(datetime.date(2024, 5, 3), form) for form in range(8)]
    ['3 May 2024', 'May 3, 2024', '3rd of May 2024', 'Friday, 3 May 2024', 'Friday, May 3, 2024', '3 May 2024', 'May 3rd, 2024',
     '03.05.2024']
    """
    month, day = MONTHS[date.month - 1], date.day
    th = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0, "th")
    return FORMS[form].format(
        day=day, th=th, month=month, mon=month[:3], number=date.month, year=date.year, weekday=WEEKDAYS[date.weekday()]
    )


def number_words(count: int = 20_000, seed: int = 0) -> Pairs:
    """``four hundred and two`` -> ``402``, words to digits; ``count`` different numbers of 0 … 999,999, generated.

    Numbers below 10, 100, … 1,000,000 are drawn equally often, so that short ones are among them as long as there are new ones.
    A tenth is to validate and a tenth to test with.

    Raises ValueRangeError for a count that is too small to be cut in parts, or larger than 100,000.
    """
    _check_count("number words", count, 100_000)
    words = philox(check_seed(seed, "number words"), GENERATE).random_raw(40 * count).reshape(2, -1)
    drawn = words[0] % 10 ** (1 + words[1] % 6)
    _, first = np.unique(drawn, return_index=True)
    different = drawn[np.sort(first)[:count]]
    order = np.argsort(words[0, :count], kind="stable")  # the short ones came first
    pairs = [(in_words(n), str(n)) for n in different[order].tolist()]
    return Pairs("number words", hold_out(pairs, HELD_OUT), WORDS, CHARACTERS)


def in_words(n: int) -> str:
    """A number of 0 … 999,999 in English words.

    >>> [in_words(n) for n in (0, 13, 402, 21_000, 700_085)]
    ['zero', 'thirteen', 'four hundred and two', 'twenty one thousand', 'seven hundred thousand and eighty five']
    """
    if n >= 1000:
        rest = n % 1000
        return f"{in_words(n // 1000)} thousand" + (f"{' and' if rest < 100 else ''} {in_words(rest)}" if rest else "")
    if n >= 100:
        return f"{ONES[n // 100]} hundred" + (f" and {in_words(n % 100)}" if n % 100 else "")
    if n >= 20:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    return ONES[n]


def _check_count(name: str, count: int, largest: int) -> None:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 10 <= count <= largest:
        raise ValueRangeError(f"{name}: count must be a whole number from 10 to {largest:,}, got {count!r}.")
