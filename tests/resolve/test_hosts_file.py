"""Names that need no DNS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grpclb_core.resolve.dns.hosts import HostsFile, loopback


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hosts"


def test_addresses_aliases_and_comments(path: Path) -> None:
    path.write_text(
        "# 10.0.0.9 greeter\n"
        "\n"
        "10.0.0.1\tgreeter Greeter.Test # greeter2\n"
        "2001:DB8::1 greeter\n"
        "nonsense greeter\n"
        "10.0.0.5\n"
    )
    hosts = HostsFile(path)
    assert hosts.look_up("greeter") == ("10.0.0.1", "2001:db8::1")
    assert hosts.look_up("GREETER.test.") == ("10.0.0.1",)
    assert hosts.look_up("greeter2") == ()


def test_a_change_is_seen(path: Path) -> None:
    path.write_text("10.0.0.1 greeter\n")
    hosts = HostsFile(path)
    assert hosts.look_up("greeter") == ("10.0.0.1",)
    path.write_text("10.0.0.2 greeter\n")
    os.utime(path, ns=(1, 1))
    assert hosts.look_up("greeter") == ("10.0.0.2",)
    path.unlink()
    assert hosts.look_up("greeter") == ()
    path.write_text("10.0.0.3 greeter\n")
    assert hosts.look_up("greeter") == ("10.0.0.3",)


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("10.0.0.1 greeter\n")
    hosts = HostsFile(path)
    assert hosts.look_up("greeter")

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", refuse)
    assert hosts.look_up("greeter") == ("10.0.0.1",)


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe greeter\n10.0.0.1 greeter\n")
    assert HostsFile(path).look_up("greeter") == ("10.0.0.1",)


def test_a_folder_is_an_empty_file(tmp_path: Path) -> None:
    assert HostsFile(tmp_path).look_up("greeter") == ()


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "a.localhost", "a.b.localhost"])
def test_localhost_is_the_loopback(name: str) -> None:
    assert loopback(name) == ("127.0.0.1", "::1")


@pytest.mark.parametrize("name", ["localhosts", "notlocalhost", "localhost.test", ""])
def test_other_names_are_not(name: str) -> None:
    assert loopback(name) == ()
