"""A broken study gives one line that names file, line and key, and exit 2, in no time; nothing else happens."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phaselaw.cli import main
from phaselaw.errors import StudyError
from phaselaw.study.file import load_study

SOUND = """\
run_name: sound
gen_tokens: 8
repetitions: 2
warmup_repetitions: 1
seed: 1
scenarios:
  - name: short
    prompt_tokens: 9
backends:
  - name: fake
    kind: simulated
models:
  - name: one
    kind: simulated
"""

SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Broken:
    """A study that is wrong, and what a person must be told about it."""

    name: str
    content: str | bytes
    line: int | None
    says: tuple[str, ...]


def but(old: str, new: str, line: int, *says: str, name: str | None = None) -> Broken:
    assert SOUND.count(old) == 1, old
    return Broken(name or new.strip().splitlines()[0][:50], SOUND.replace(old, new), line, says)


def plus(text: str, *says: str, name: str | None = None, line: int = 15) -> Broken:
    return Broken(name or text.strip().splitlines()[0][:50], SOUND + text, line, says)


def law(setting: str, *says: str, name: str | None = None) -> Broken:
    """A simulated backend with one more line, line 12."""
    return but("simulated\nmodels", f"simulated\n    {setting}\nmodels", 12, *says, name=name or setting)


def ollama(setting: str, *says: str, name: str) -> Broken:
    """An Ollama backend with one line, line 12, of its own."""
    return but("simulated\nmodels", f"ollama\n    {setting}\nmodels", 12, *says, name=name)


BILLION_LAUGHS = 'a: &a ["lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol", "lol"]\n' + "".join(
    f"{now}: &{now} [{', '.join([f'*{before}'] * 10)}]\n" for before, now in zip("abcdefgh", "bcdefghi", strict=True)
)

BROKEN = [
    # Keys.
    but("repetitions: 2\n", "repetition: 2\n", 3, "repetition: unknown key (did you mean 'repetitions'?)"),
    law(
        "overhead: 3",
        "backends[0].overhead: unknown key (did you mean 'overhead_ms'?)",
        name="unknown key of a backend",
    ),
    but("prompt_tokens: 9", "tokens: 9", 8, "scenarios[0].tokens: unknown key"),
    plus("axes: {gen_token: [8]}\n", "axes.gen_token: unknown key (did you mean 'gen_tokens'?)"),
    but("models:\n  - name: one\n    kind: simulated\n", "", 1, "models: missing; add it", name="no models"),
    but(
        "  - name: one\n    kind: simulated", "  - name: one", 13, "models[0].kind: missing", name="model without kind"
    ),
    but("    kind: simulated\nmodels", "models", 10, "backends[0]: kind is missing", name="backend without kind"),
    but(
        "    kind: simulated\nmodels",
        "    kind: vllm9\nmodels",
        10,
        "backends[0]: kind 'vllm9' is unknown; one of 'hf'",
        name="unknown engine",
    ),
    plus("seed: 2\n", "seed: given twice (first in line 5)", name="a key twice"),
    but(
        "prompt_tokens: 9",
        "prompt_tokens: 9\n    prompt: Hello",
        7,
        "scenarios[0]: give exactly one of prompt",
        name="two kinds of prompt",
    ),
    plus("1: x\n", "1: unknown key", name="a number as a key"),
    plus("? [a, b]\n: 1\n", "a key must be a plain word", name="a list as a key"),
    plus('"\\e[31mred\\n": 1\n', "'\\x1b[31mred\\n': unknown key", name="a key of control characters"),
    plus(f'"{"k" * 900}": 1\n', "unknown key", name="a very long key"),
    # Types and units.
    but("gen_tokens: 8", "gen_tokens: 8 tokens", 2, "gen_tokens: should be a whole number, not '8 tokens'"),
    but("gen_tokens: 8", 'gen_tokens: "8"', 2, "gen_tokens: should be a whole number, not '8'"),
    but("gen_tokens: 8", "gen_tokens: 8.0", 2, "gen_tokens: should be a whole number, not 8.0"),
    but("gen_tokens: 8", "gen_tokens: true", 2, "gen_tokens: should be a whole number, not True"),
    but("gen_tokens: 8", "gen_tokens: 1:30", 2, "gen_tokens: should be a whole number, not '1:30'"),
    but("gen_tokens: 8", "gen_tokens: [8, 16]", 2, "gen_tokens: should be a whole number, not [8, 16]"),
    but(
        "gen_tokens: 8", "gen_tokens:", 2, "gen_tokens: should be a whole number, not None", name="a key without value"
    ),
    law("overhead_ms: 5ms", "backends[0].overhead_ms: should be a number, not '5ms'", name="a number with its unit"),
    law(
        "overhead_s: 5",
        "backends[0].overhead_s: unknown key (did you mean 'overhead_ms'?)",
        name="a key with another unit",
    ),
    but("run_name: sound", "run_name: no", 1, "run_name: should be text, not False; put it in quotes"),
    but("run_name: sound", 'run_name: "../a|b"', 1, "run_name: a name holds no control characters, no |"),
    but("name: short", "name: __all__", 7, "scenarios[0]: __all__ is the name of figures over all scenarios"),
    but("name: short", 'name: " "', 7, "scenarios[0].name: a name holds", name="a blank name"),
    but("name: one", "name: {a: b}", 13, "models[0].name: should be text, not {'a': 'b'}"),
    but(
        "scenarios:\n  - name: short\n    prompt_tokens: 9\n",
        "scenarios: short\n",
        6,
        "scenarios: should be a list, not 'short'",
    ),
    but(
        "  - name: one\n    kind: simulated",
        "  - 3",
        13,
        "models[0]: should be a mapping of keys, not 3",
        name="a number as a model",
    ),
    but(
        "  - name: one",
        "  - nosuchmodel\n  - name: one",
        13,
        "models[0]: no known entry 'nosuchmodel'",
        name="an unknown bare name",
    ),
    but(
        "  - name: one",
        "  - models/gpt2-6m\n  - name: one",
        13,
        "(did you mean 'models/gpt2-",
        name="a mistyped bare name",
    ),
    # Values.
    but(
        "repetitions: 2\nwarmup",
        "repetitions: -1\nwarmup",
        3,
        "repetitions: should be greater than or equal to 1, not -1",
        name="repetitions: -1",
    ),
    but(
        "warmup_repetitions: 1", "warmup_repetitions: -1", 4, "warmup_repetitions: should be greater than or equal to 0"
    ),
    but("repetitions: 2\nwarmup", "repetitions: 0\nwarmup", 3, "repetitions: should be", name="repetitions: 0"),
    but("prompt_tokens: 9", "prompt_tokens: 0", 8, "scenarios[0].prompt_tokens: should be greater"),
    but("prompt_tokens: 9", 'prompt: ""', 8, "scenarios[0].prompt: should be at least one character"),
    but("seed: 1", "seed: 99999999999999999999", 5, "seed: '99999999999999999999' is too large a number"),
    but("seed: 1", f"seed: 0x{'F' * 6000}", 5, "is too large a number", name="a hexadecimal of 6,000 digits"),
    but("seed: 1", f"seed: {'9' * 6000}", 5, "can't be read as a number", name="a number of 6,000 digits"),
    law("params_ms: .nan", "backends[0].params_ms: '.nan' is not a number", name="NaN"),
    law("params_ms: -.inf", "'-.inf' is not a number", name="infinity"),
    law("params_ms: 1e999", "'1e999' is not a number", name="1e999"),
    law("failure_rate: 1.5", "failure_rate: should be less than or equal to 1", name="a share above 1"),
    plus("order: random\n", "order: should be 'rounds' or 'cells', not 'random'"),
    plus("axes: {gen_tokens: []}\n", "axes.gen_tokens: is empty; give at least one"),
    plus("axes: {gen_tokens: [8, 16, 8]}\n", "axes.gen_tokens[2]: 8 is there twice"),
    plus("axes: {gen_tokens: [8, x]}\n", "axes.gen_tokens[1]: should be a whole number, not 'x'"),
    plus(
        "axes: {gen_tokens: [8]}\ngen_tokens_list: [8]\n",
        "gen_tokens_list: given beside axes.gen_tokens",
        line=16,
        name="both names of the axis",
    ),
    but(
        "simulated\nmodels",
        "hf\n    device: tpu\nmodels",
        12,
        "backends[0].device: should be cpu, cuda, cuda:N or mps",
        name="device: tpu",
    ),
    but("models:\n  - name: one\n    kind: simulated\n", "models: []\n", 12, "models: is empty; give at least one"),
    but(
        "repetitions: 2\nwarmup",
        "repetitions: 1000000\nwarmup",
        3,
        "repetitions: 1,000,001 calls in 1 cell; a study has at most 1,000,000",
        name="too many calls",
    ),
    # What belongs together.
    plus(
        "  - name: one\n    kind: simulated\n",
        "models[1]: 'one' is there twice (first in line 13)",
        line=15,
        name="a model twice",
    ),
    but(
        "models:",
        "  - name: fake\n    kind: hf\nmodels:",
        12,
        "backends[1]: 'fake' is there twice (first in line 10)",
        name="a backend twice",
    ),
    plus(
        "  - name: two\n    kind: hf\n",
        "models[1]: 'two' is of kind 'hf' but no backend is; add one",
        line=15,
        name="a model without backend",
    ),
    plus(
        "    backends: [flake]\n",
        "models[0].backends: no backend 'flake' of kind 'simulated' (did you mean 'fake'?)",
        line=15,
        name="a model on an unknown backend",
    ),
    # Secrets.
    ollama(
        'url: "http://me:hunter2@localhost:11434"',
        "backends[0].url: holds a user name or password",
        "OLLAMA_HOST",
        name="a password in a URL",
    ),
    ollama(
        'url: "http://localhost:1/?key=hunter2"', "backends[0].url: should be http://HOST:PORT", name="a query in a URL"
    ),
    ollama("url: localhost:11434", "backends[0].url: should be http://HOST:PORT", name="a URL without scheme"),
    ollama("url: http://localhost:99999", "backends[0].url: should be http://HOST:PORT", name="a port out of range"),
    ollama(
        "options: {a: {b: c}}", "backends[0].options.a: should be text or a whole number", name="a mapping as an option"
    ),
    # YAML.
    plus("x: [1, 2\n", "not valid YAML", name="an unclosed list", line=16),
    plus("\tx: 1\n", "not valid YAML", "tab", name="a tab"),
    plus('x: "open\n', "not valid YAML", name="an unclosed quote", line=16),
    plus("x: *nothing\n", "not valid YAML: found undefined alias", name="an undefined alias"),
    plus("x: @y\n", "not valid YAML", name="a reserved character"),
    plus("---\nrun_name: other\n", "a second YAML document; a study is one", name="two documents"),
    plus("base: &b {gen_tokens: 8}\n<<: *b\n", "merge keys (<<) are not supported", line=16, name="a merge key"),
    plus(BILLION_LAUGHS, "more than 50000 values once its aliases are expanded", line=19, name="an alias bomb"),
    plus("x: &x [*x]\n", "x: nested deeper than 30 levels once its aliases are expanded", name="an alias of itself"),
    plus(f"x: {'[' * 100_000}\n", "nested deeper than 30 levels", name="deep lists"),
    plus(f"x: {'{a: ' * 100_000}\n", "nested deeper than 30 levels", name="deep mappings"),
    plus(
        "x:\n" + "".join(f"{' ' * depth}-\n" for depth in range(200)),
        "nested deeper than 30 levels",
        name="deep blocks",
        line=45,
    ),
    plus(f"x: [{'a, ' * 300_000}]\n", "more than 50000 values", name="a very long list"),
    plus(f"x: [{'3, ' * 9_000}]\n", "x: unknown key", name="a long list of nothing"),
    but(
        "  - name: one\n    kind: simulated\n",
        f"{'  - 3' + chr(10)}" * 900,
        13,
        "models[0]: should be a mapping of keys, not 3 (and 899 more)",
        name="900 faults",
    ),
    plus(
        "x: !!python/object/apply:os.system ['touch pwned']\n",
        "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
        name="a tag that would run a command",
    ),
    plus(
        "x: !!python/name:os.system ''\n",
        "the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed",
        name="a tag that names Python",
    ),
    plus("x: !mine 3\n", "the tag '!mine' is not allowed", name="a local tag"),
    plus("x: !!binary aGVsbG8=\n", "the tag 'tag:yaml.org,2002:binary' is not allowed", name="base64"),
    Broken(
        "a tag directive bomb",
        "".join(f"%TAG !{at}! x\n" for at in range(60_000)) + f"---\n{SOUND}",
        1,
        ("the directive %TAG is not allowed",),
    ),
    plus(
        f"gen_tokens_list: [{', '.join(map(str, range(1, 1002)))}]\n",
        "axes.gen_tokens: has too many items; at most 1000",
        name="too many budgets",
    ),
    # Not a study at all.
    Broken("an empty file", "", 1, ("the file is empty; see: phaselaw study show",)),
    Broken("only a comment", "# nothing\n", 1, ("the file is empty",)),
    Broken("only null", "null\n", 1, ("the file is empty",)),
    Broken("a word", "hello\n", 1, ("a study is a mapping of keys",)),
    Broken("a list", "- a\n- b\n", 1, ("a study is a mapping of keys",)),
    Broken("a CSV table", "backend,model\nhf,gpt2\n", 1, ("a study is a mapping of keys",)),
    Broken("JSON cut short", '{"run_name": "x", "scenarios": [', 2, ("not valid YAML",)),
    Broken("NUL bytes", SOUND.encode() + b"\0\0\0", 15, ("the character U+0000 is not text",)),
    Broken("an escape character", SOUND + "x: \x1b[31m\n", 15, ("the character U+001B is not text",)),
    Broken("latin-1", "run_name: caf\xe9\n".encode("latin-1"), 1, ("not a text file in UTF-8",)),
    Broken("UTF-16", SOUND.encode("utf-16"), 1, ("not a text file in UTF-8",)),
    Broken("an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), 1, ("not a text file in UTF-8",)),
    Broken("gzip", b"\x1f\x8b\x08\0" + bytes(range(255, 0, -1)), 1, ("not a text file in UTF-8",)),
    Broken(
        "30 MB of text", SOUND + "# " + "x" * 30_000_000, None, ("30.0 MB is too large for a study (at most 1 MB)",)
    ),
    Broken("30 MB of NUL bytes", b"\0" * 30_000_000, None, ("30.0 MB is too large",)),
]


def told(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command leaves on stderr."""
    begin = time.monotonic()
    code = main(list(argv))
    assert time.monotonic() - begin < SECONDS
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.isascii() or captured.err.strip().isprintable()
    assert len(captured.err) < 700
    return captured.err.rstrip("\n")


def test_the_table_is_long_and_its_names_are_unique() -> None:
    names = [broken.name for broken in BROKEN]
    assert len(names) == len(set(names)) > 80


def test_what_the_broken_ones_are_made_from_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sound.yaml"
    path.write_text(SOUND)
    assert main(["study", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: sound, and all is there: 1 cell, 1 replicate, 3 calls, 9 rows\n"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_broken_study_is_one_line_with_file_line_and_key(
    broken: Broken, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "broken.yaml"
    path.write_bytes(broken.content.encode() if isinstance(broken.content, str) else broken.content)
    line = told(*(("study", "check") if command == "check" else ("run",)), str(path), capsys=capsys)
    place = f"{path}:" if broken.line is None else f"{path}:{broken.line}: "
    assert line.startswith(f"phaselaw: error: {place}")
    for says in broken.says:
        assert says in line
    assert "hunter2" not in line
    assert [found.name for found in tmp_path.iterdir()] == ["broken.yaml"], "something was run or written"


@pytest.mark.parametrize("command", [("study", "check"), ("study", "show"), ("run",), ("run", "--dry-run")])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.yaml", "no such study file, nor a shipped study; these ship: phaselaw study list"),
        ("gpt2-ladder-cpo", "(did you mean 'gpt2-ladder-cpu'?)"),
        (".", "a folder; give a study file"),
        ("there.yaml/x", "no such study file"),
        ("a" * 3000, "File name too long"),
        ("a\0b", "no such study file"),
        ("", "no such study file"),
        ("pipe", "not a plain file"),
    ],
)
def test_a_file_that_is_not_there_is_one_line(
    name: str,
    says: str,
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "" and command[0] == "run":
        pytest.skip("an empty STUDY is run's default")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text(SOUND)
    os.mkfifo(tmp_path / "pipe")
    assert says in told(*command, name, capsys=capsys)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(SOUND)
    path.chmod(0)
    assert "Permission denied" in told("study", "check", str(path), capsys=capsys)


IN_A_PROCESS = ["an alias bomb", "a tag that would run a command", "30 MB of NUL bytes", "deep lists", "900 faults"]


@pytest.mark.parametrize("broken", [b for b in BROKEN if b.name in IN_A_PROCESS], ids=lambda broken: broken.name)
@pytest.mark.parametrize("command", [("study", "check"), ("run",)])
def test_the_real_process_says_so_too_within_seconds(broken: Broken, command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(broken.content.encode() if isinstance(broken.content, str) else broken.content)
    done = subprocess.run(
        [sys.executable, "-m", "phaselaw", *command, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"phaselaw: error: {path}:")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def check(path: Path, content: bytes) -> None:
    """Loads, or is refused by one line that names the file; anything else is a bug."""
    path.write_bytes(content)
    begin = time.monotonic()
    try:
        load_study(str(path))
    except StudyError as error:
        assert str(error).startswith(f"{path}:")
        assert "\n" not in str(error)
    assert time.monotonic() - begin < SECONDS


any_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["run_name", "gen_tokens", "repetitions", "seed", "order", "axes", "scenarios", "backends", "models"]
INNER = ["name", "kind", "prompt", "prompt_tokens", "device", "url", "options", "batch_size", "params_millions"]
KINDS = st.sampled_from(["hf", "simulated", "ollama", "models/gpt2-5m", "micro", "ollama", "x", "cpu"])
entry = st.dictionaries(st.sampled_from(INNER), KINDS | any_data, max_size=5)
almost_a_study = st.dictionaries(
    st.sampled_from([*KEYS, "gen_tokens_list"]), any_data | st.lists(entry | KINDS | any_data, max_size=3), max_size=10
)
fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf")
@example(b"%YAML 1.1\n---\n")
@example(b"? \n: \n")
@example(b"<<: {}\n")
@example(b"\xc2\x85a: b")
def test_random_bytes_never_crash(tmp_path: Path, content: bytes) -> None:
    check(tmp_path / "any.yaml", content)


@fuzz
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>%@'\"\\#,? \n\t0.e1"), max_size=80))
def test_random_yaml_punctuation_never_crashes(tmp_path: Path, content: str) -> None:
    check(tmp_path / "any.yaml", content.encode())


@fuzz
@given(almost_a_study)
def test_random_values_under_known_keys_never_crash(tmp_path: Path, data: dict[str, object]) -> None:
    check(tmp_path / "any.yaml", yaml.safe_dump(data).encode())


@fuzz
@given(st.sampled_from(KEYS + [f"{key}.0.{inner}" for key in KEYS[-3:] for inner in INNER]), any_data)
def test_one_wrong_value_in_a_sound_study_never_crashes(tmp_path: Path, key: str, value: object) -> None:
    data = yaml.safe_load(SOUND)
    outer, _, inner = key.partition(".0.")
    if inner:
        data[outer][0][inner] = value
    else:
        data[outer] = value
    check(tmp_path / "any.yaml", yaml.safe_dump(data).encode())


@fuzz
@given(st.integers(0, len(SOUND) - 1), st.integers(0, 40), st.text(max_size=4))
def test_a_sound_study_with_a_piece_overwritten_never_crashes(tmp_path: Path, at: int, length: int, text: str) -> None:
    content = SOUND[:at] + text + SOUND[at + length :]
    check(tmp_path / "any.yaml", content.encode("utf-8", "surrogatepass"))
