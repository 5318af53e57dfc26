from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import omniconv as oc
from omniconv.models import hub


class Api:
    """Remembers what it is asked."""

    calls: list[Any]

    def __init__(self, token: str | None = None):
        Api.calls = [("token", token)]

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        Api.calls.append(("create", repository, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str]) -> str:
        Api.calls.append(("upload", repo_id, folder_path, sorted(allow_patterns)))
        return f"https://hub/{repo_id}"


FILES = ["README.md", "config.json", "model.safetensors"]


def test_upload_hands_over_the_three_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api))
    oc.CCNN(1, 2, 8, blocks=1, width=4).save_pretrained(tmp_path)
    assert hub.upload(tmp_path, "me/net", private=True, token="t") == "https://hub/me/net"
    assert Api.calls == [("token", "t"), ("create", "me/net", True, True), ("upload", "me/net", str(tmp_path), FILES)]


def test_a_folder_without_a_network_is_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api))
    Api.calls = []
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        hub.upload(tmp_path, "me/net")
    assert Api.calls == []


def test_what_was_downloaded_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = oc.CCNN(1, 2, 8, blocks=1, width=4).eval()
    model.save_pretrained(tmp_path)
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    folder = hub.download("me/net", revision="v1")
    asked["allow_patterns"].sort()
    assert asked == {"repository": "me/net", "revision": "v1", "token": None, "allow_patterns": FILES}
    x = torch.randn(2, 1, 8)
    assert torch.equal(oc.CCNN.from_pretrained(folder)(x), model(x))


def test_the_real_library_has_these_functions() -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    assert callable(huggingface_hub.snapshot_download)
    assert callable(huggingface_hub.HfApi.upload_folder)
    assert callable(huggingface_hub.HfApi.create_repo)


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"omniconv\[hub\]"):
        hub.download("me/net")
