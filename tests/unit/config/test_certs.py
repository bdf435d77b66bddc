"""Where a registry's certificates are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.config import certs


def test_the_users_directory_comes_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc"
    monkeypatch.setattr(certs, "_SYSTEM", (system,))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    host = "registry.example.com:5000"
    assert certs.find_cert_dir(host) is None
    (system / host).mkdir(parents=True)
    assert certs.find_cert_dir(host) == system / host
    own = tmp_path / "config/containers/certs.d" / host
    own.mkdir(parents=True)
    assert certs.find_cert_dir(host) == own
    assert certs.find_cert_dir("registry.example.com") is None


def test_a_relative_config_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs, "_SYSTEM", ())
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".config/containers/certs.d/host"
    own.mkdir(parents=True)
    assert certs.find_cert_dir("host") == own
