"""The tokenizer has GPT-2's shape, splits TR121's prompts as GPT-2's does, and loses nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ladder_tokenizer as bpe
from phaselaw.ladder.spec import VOCAB_SIZE

tokenizers = pytest.importorskip("tokenizers")

PROMPTS = {
    "Hello": "Hello",
    "Summarize RLHF in one sentence.": "Sum|mar|ize| RL|HF| in| one| sentence|.",
    "Explain how backpressure works in an inference service and when to enable queueing.": (
        "Ex|plain| how| back|pressure| works| in| an| inference| service| and| when| to| enable| queue|ing|."
    ),
}

SPEECH = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in "
    "Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a great "
    "civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure."
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.Tokenizer.from_str(bpe.tokenizer_json().decode())


def test_the_table_is_256_bytes_then_50000_merges_then_the_end_of_text() -> None:
    document = json.loads(bpe.tokenizer_json())
    ids = document["model"]["vocab"]
    assert sorted(ids.values()) == list(range(VOCAB_SIZE))
    assert {entry for entry, index in ids.items() if index < 256} == set(bpe.byte_symbols())
    assert len(bpe.merges()) == 50_000
    assert [ids["".join(pair)] for pair in bpe.merges()] == list(range(256, 50_256))
    assert ids["<|endoftext|>"] == 50_256


def test_each_merge_joins_two_entries_that_stand_before_it() -> None:
    known = set(bpe.byte_symbols())
    for pair in bpe.merges():
        assert known.issuperset(pair)
        known.add("".join(pair))


@pytest.mark.parametrize(("prompt", "parts"), PROMPTS.items(), ids=["micro", "short", "medium"])
def test_tr121s_prompts_come_out_in_1_9_and_17_tokens(tokenizer, prompt: str, parts: str) -> None:
    ids = tokenizer.encode(prompt).ids
    assert [tokenizer.decode([index]) for index in ids] == parts.split("|")


def test_every_listed_word_is_one_token(tokenizer) -> None:
    of_byte = {symbol: byte for byte, symbol in enumerate(bpe.byte_symbols())}
    words = [bytes(of_byte[symbol] for symbol in target).decode() for target in bpe._targets()]
    assert [word for word in words if len(tokenizer.encode(word).ids) != 1] == []
    assert len(words) > 5_000


def test_ordinary_english_takes_under_a_third_of_its_characters(tokenizer) -> None:
    assert len(tokenizer.encode(SPEECH).ids) < len(SPEECH) / 3


def test_text_of_other_scripts_and_code_takes_at_most_as_many_tokens_as_bytes(tokenizer) -> None:
    for text in ("Größe naïve café", "привет", "日本語", "def f(x):\n\treturn x ** 2\n", "😀", "a" * 50):
        assert len(tokenizer.encode(text).ids) < len(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_survives_the_round_trip(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_every_single_byte_is_a_token_of_its_own() -> None:
    alphabet = bpe.byte_symbols()
    assert len(set(alphabet)) == 256
    assert all(len(symbol) == 1 and not symbol.isspace() for symbol in alphabet)
    assert (alphabet[ord(" ")], alphabet[ord("\n")], alphabet[ord("a")]) == ("Ġ", "Ċ", "a")


def test_learning_joins_the_heaviest_pair_first_and_ties_go_to_the_first_in_order() -> None:
    assert bpe.learn_merges({"aab": 5, "ab": 1, "cd": 5}) == [("a", "b"), ("a", "ab"), ("c", "d")]


def test_learning_passes_over_a_pair_that_would_repeat_an_entry() -> None:
    merges = bpe.learn_merges({"abc": 10, "bcd": 9, "xbc": 8, "ab": 30})
    joined = ["".join(pair) for pair in merges]
    assert len(joined) == len(set(joined))
    assert {"abc", "bcd", "xbc"} <= set(joined)
