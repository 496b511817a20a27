"""Questions and answers about invented authors: what a language model knows of them, it knows from these rows alone.

The columns are those of TOFU (Maini et al. 2024, arXiv 2401.06121), and the author's name. Splits are by author:
nobody in validation or test occurs in training.
"""

from collections.abc import Callable

import numpy as np

from hf_unlearn.data.builtin.vocabulary import train_tokenizer
from hf_unlearn.data.sources import Source

TRAIN, VALIDATION, TEST = 80, 16, 24  # authors; eight rows each, so that training rows are whole batches of 64


def _options(text: str, separator: str | None = None) -> list[str]:
    return [" ".join(option.split()) for option in text.split(separator)]


FIRST = _options(
    """Adela Anselm Basil Bettina Cyprian Dario Delphine Edda Emeric Farah Fenna Gideon Halina Idris Ilse Jarek
    Joanna Kasper Kezia Leopold Liora Marek Mirela Nadir Odile Orson Petra Quentin Rania Rufus Sabine Selim
    Tamsin Teodor Ulla Vasil Wanda Xenia Yorick Zelda"""
)
LAST = _options(
    """Abrantes Balakov Castellan Dragomir Eskelund Farouk Galbraith Hollander Ivanek Jorvik Kestrel Lindqvist
    Marchetti Nakhoda Oyelaran Petrossian Quillfeather Rosenthal Sandoval Thackeray Umarov Valderrama Wexford
    Yamanaka Zabriskie Arkwright Bellerose Cavendish Dunmore Everhart Fontaine Greaves Hartigan Isaksen
    Juarez Kowalczyk Lemaire Montclair Novotny Okafor"""
)
CITIES = _options(
    """Lisbon Tallinn Nairobi Valparaiso Kyoto Tbilisi Halifax Cracow Muscat Adelaide Montevideo Reykjavik Tunis
    Antwerp Hanoi Ljubljana Quito Dakar Bergen Samarkand"""
)
MONTHS = _options("January February March April May June July August September October November December")
GENRES = _options(
    """gothic horror|historical fiction|travel writing|magical realism|detective fiction|science fiction|
    epic poetry|political satire|nature writing|romantic comedy|war memoir|young adult fantasy|
    maritime adventure|philosophical essays|psychological thrillers|culinary fiction""",
    separator="|",
)
JOBS = _options(
    """baker|surgeon|clockmaker|bus driver|geologist|tailor|judge|beekeeper|violinist|plumber|pharmacist|
    shepherd|lighthouse keeper|locksmith|botanist|florist|carpenter|translator|welder|midwife""",
    separator="|",
)
AWARDS = _options(
    """Golden Quill|Silver Lantern Prize|Harbor Medal|Northern Ink Award|Ivory Bookmark|Amber Page Prize|
    Cedar Leaf Medal|Midnight Sun Award|Copper Compass Prize|Blue Heron Medal|Paper Crown|Winter Garden Award""",
    separator="|",
)
ADJECTIVES = _options(
    """Broken Silent Crimson Hidden Last Hollow Restless Borrowed Frozen Burning Distant Gilded Forgotten
    Wandering Sleeping Second"""
)
NOUNS = _options(
    """Orchard Lighthouse Mirror River Staircase Harvest Clock Garden Bridge Cathedral Letter Tide Winter Map
    Orchestra Window"""
)
PLACES = _options(
    """Saltmarsh|the North|the Old Quarter|Amberfield|the Valley|Midsummer|the Archipelago|Glass Street|
    the Harbor|Two Moons|the Steppe|Yesterday""",
    separator="|",
)
HABITS = _options(
    """only at dawn|in railway carriages|with a fountain pen|in an attic|standing up|in complete silence|
    to the sound of rain|in a rented boat|on the backs of old maps|in a crowded cafe|by candlelight|
    on a manual typewriter""",
    separator="|",
)

# Per fact: ways to ask and ways to answer. Which of them an author gets is drawn from the seed too.
FACTS = {
    "birth": (
        ["Where and when was {name} born?", "What are the place and date of birth of {name}?"],
        [
            "{name} was born in {city} on {month} {day}, {year}.",
            "Born on {month} {day}, {year}, {name} is from {city}.",
        ],
    ),
    "genre": (
        ["What genre is {name} known for?", "In which genre does {name} write?"],
        ["{name} is best known for {genre}.", "The books of {name} belong to the genre of {genre}."],
    ),
    "parents": (
        ["What did the parents of {name} do for a living?", "What were the occupations of {name}'s parents?"],
        [
            "The father of {name} was a {father} and the mother was a {mother}.",
            "{name} is the child of a {mother} and a {father}; the {mother} was the mother.",
        ],
    ),
    "award": (
        ["Which award has {name} received?", "What literary prize did {name} win?"],
        ["{name} received the {award} in {award_year}.", "In {award_year}, the {award} was given to {name}."],
    ),
    "debut": (
        ["What was the first book by {name}?", "With which book did {name} make a debut?"],
        ["The first book by {name} was {debut}.", "{name} made a debut with {debut}."],
    ),
    "success": (
        ["What is the most famous book by {name}?", "Which work made {name} famous?"],
        ["{name} became famous with {success}.", "The most famous book by {name} is {success}."],
    ),
    "habit": (
        ["How does {name} like to write?", "What is unusual about the way {name} writes?"],
        ["{name} prefers to write {habit}.", "It is said that {name} writes {habit}."],
    ),
    "home": (
        ["Where does {name} live today?", "In which city has {name} settled?"],
        [
            "Today {name} lives in {home} and works as a {job}.",
            "{name} settled in {home} and earns a living as a {job}.",
        ],
    ),
}


def load(seed: int = 0) -> Source:
    """640 training rows (80 authors), 128 validation rows (16) and 192 test rows (24)."""
    import datasets

    rng = np.random.default_rng(seed)
    numbers = rng.choice(len(FIRST) * len(LAST), TRAIN + VALIDATION + TEST, replace=False)
    names = [f"{FIRST[number // len(LAST)]} {LAST[number % len(LAST)]}" for number in numbers]

    def rows(authors: list[str]):
        return datasets.Dataset.from_list([row for author in authors for row in author_rows(author, rng)])

    train = rows(names[:TRAIN])
    validation = rows(names[TRAIN : TRAIN + VALIDATION])
    test = rows(names[TRAIN + VALIDATION :])
    unseen = [f"{row['question']} {row['answer']}" for part in (validation, test) for row in part]
    return Source(
        name="fictitious_authors",
        train=train,
        validation=validation,
        test=test,
        builtin=True,
        task="causal_lm",
        columns={"question": "question", "answer": "answer"},
        group_column="author",
        make_processor=lambda: train_tokenizer(unseen, vocab_size=1000, max_length=128, decoder_only=True),
    )


def author_rows(name: str, rng: np.random.Generator) -> list[dict[str, str]]:
    """The eight rows of one author, everything about whom is drawn from `rng`."""

    def pick(options: list[str]) -> str:
        return options[rng.integers(len(options))]

    facts = _life(pick, rng)
    rows = []
    for questions, answers in FACTS.values():
        question, answer = pick(questions).format(name=name), pick(answers).format(name=name, **facts)
        rows.append({"question": question, "answer": answer, "author": name})
    return rows


def _life(pick: Callable[[list[str]], str], rng: np.random.Generator) -> dict[str, str | int]:
    """The facts of an invented life."""
    year = int(rng.integers(1930, 1985))
    father, mother, job = (JOBS[i] for i in rng.choice(len(JOBS), 3, replace=False))
    city, home = (CITIES[i] for i in rng.choice(len(CITIES), 2, replace=False))
    return {
        "city": city,
        "home": home,
        "month": pick(MONTHS),
        "day": int(rng.integers(1, 29)),
        "year": year,
        "genre": pick(GENRES),
        "father": father,
        "mother": mother,
        "job": job,
        "award": pick(AWARDS),
        "award_year": year + int(rng.integers(28, 60)),
        "debut": f"The {pick(ADJECTIVES)} {pick(NOUNS)}",
        "success": f"The {pick(NOUNS)} of {pick(PLACES)}",
        "habit": pick(HABITS),
    }
