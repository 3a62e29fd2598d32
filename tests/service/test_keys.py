import re
from pathlib import Path

import pytest

from service.errors import StartError
from service.keys import Key, Role, digest_of, find_key, line_of, new_key, parse_key, read_keys
from service.settings import AccessSettings

HASH = digest_of(b"secret").hex()
OTHER_HASH = digest_of(b"other").hex()


def keys_of(path: Path, text: str, **settings: object) -> tuple[Key, ...]:
    path.write_text(text)
    return read_keys(AccessSettings(api_keys_file=path, **settings))  # type: ignore[arg-type]


def test_without_settings_there_are_no_keys() -> None:
    assert read_keys(AccessSettings()) == ()


def test_a_file_and_a_variable_add_up(tmp_path: Path) -> None:
    text = f"# who\n\n  shop:user:{HASH}:100/second  # the shop\nboss:admin:{OTHER_HASH}\n"
    third = f"graphs:metrics:{digest_of(b'third').hex()}"
    assert keys_of(tmp_path / "keys", text, api_keys=f" {third}, ") == (
        Key("shop", Role.USER, digest_of(b"secret"), "100/second"),
        Key("boss", Role.ADMIN, digest_of(b"other")),
        Key("graphs", Role.METRICS, digest_of(b"third")),
    )


def test_a_new_key_has_256_random_bits_and_its_line_is_read_back() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"patchserve_[A-Za-z0-9_-]{43}", key) for key in keys)
    made = Key("shop", Role.USER, digest_of(keys.pop().encode()), "5/minute")
    assert parse_key(line_of(made), "here") == made


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("shop", "NAME:ROLE:SHA256"),
        (f"shop:{HASH}", "NAME:ROLE:SHA256"),
        (f"shop:user:{HASH}:1/second:x", "NAME:ROLE:SHA256"),
        (f":user:{HASH}", "a name has"),
        (f"-shop:user:{HASH}", "a name has"),
        (f"{'x' * 65}:user:{HASH}", "a name has"),
        (f"shop:root:{HASH}", "one of user, metrics, admin"),
        (f"shop:USER:{HASH}", "one of user, metrics, admin"),
        ("shop:user:patchserve_oopsthekeyitself", "64 hexadecimal digits"),
        (f"shop:user:{HASH.upper()}", "64 hexadecimal digits"),
        (f"shop:user:{HASH[:-1]}", "64 hexadecimal digits"),
        (f"shop:user:{HASH}:0/second", "a rate is"),
        (f"shop:user:{HASH}:1000000/second", "a rate is"),
        (f"shop:user:{HASH}:10 per second", "a rate is"),
        (f"shop:user:{HASH}:10/week", "a rate is"),
        (f"shop:user:{HASH}:", "a rate is"),
    ],
)
def test_a_wrong_line_is_named_and_not_quoted(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(StartError) as error:
        keys_of(tmp_path / "keys", f"# first\n{line}\n")
    message = str(error.value)
    assert words in message
    assert "keys line 2" in message
    assert "\n" not in message
    assert "oopsthekeyitself" not in message


def test_a_wrong_entry_of_the_variable_is_named_and_not_quoted() -> None:
    with pytest.raises(StartError, match=r"PATCHSERVE_API_KEYS\) entry 2: a hash has") as error:
        read_keys(AccessSettings(api_keys=f"a:user:{HASH} b:user:oopsthekeyitself"))
    assert "oops" not in str(error.value)


def test_what_makes_no_sense_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="holds no API key"):
        keys_of(tmp_path / "keys", f"# shop:user:{HASH}\n")
    with pytest.raises(StartError, match="mean nothing without an API key"):
        read_keys(AccessSettings(metrics_need_key=True))
    with pytest.raises(StartError, match="same name"):
        keys_of(tmp_path / "keys", f"a:user:{HASH}\na:user:{OTHER_HASH}\n")
    with pytest.raises(StartError, match="same hash"):
        keys_of(tmp_path / "keys", f"a:user:{HASH}\nb:admin:{HASH}\n")
    with pytest.raises(StartError, match="1001 API keys are too many"):
        keys_of(tmp_path / "keys", "".join(f"k{n}:user:{n:064x}\n" for n in range(1001)))


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "not ASCII"), (b"#" * 1_000_001, "more than 1000000 bytes")]
)
def test_a_file_that_holds_no_lines_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(StartError, match=words):
        read_keys(AccessSettings(api_keys_file=tmp_path / "keys"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nowhere cannot be read: No such file"):
        read_keys(AccessSettings(api_keys_file=tmp_path / "nowhere"))


def test_a_key_is_found_by_its_hash_wherever_it_stands() -> None:
    keys = [Key(name, Role.USER, digest_of(name.encode())) for name in ("a", "b", "c")]
    assert [find_key(keys, name) for name in (b"a", b"b", b"c")] == keys
    for wrong in (b"", b"A", b"aa", b"\xff", b"x" * 10_000, keys[0].digest, keys[0].digest.hex().encode()):
        assert find_key(keys, wrong) is None


def test_every_key_is_compared_whoever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[bytes] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = [Key(name, Role.USER, digest_of(name.encode())) for name in ("a", "b", "c")]
    find_key(keys, b"a")
    assert compared == [key.digest for key in keys]
