"""Saved networks on the Hugging Face hub. Nothing here runs unless it is called, and nothing else downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omniconv._errors import require
from omniconv.models._pretrained import CARD, CONFIG, WEIGHTS, read_config

FILES = (CONFIG, WEIGHTS, CARD)


def upload(folder: str | Path, repository: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a saved network (config.json, model.safetensors, README.md) to the hub; returns the address.

    `repository`: "user/name", made if it is not there. `private`: whether a new one is private. `token`: of the hub;
    None takes the one of `hf auth login`. Raises `FileNotFoundError` or `ValueError` unless `folder` holds a saved
    network, `ImportError` that names the extra `hub`.
    """
    read_config(folder)
    hub: Any = require("huggingface_hub", extra="hub", purpose="uploading to the hub")
    api = hub.HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES)))


def download(repository: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Download a saved network from the hub; returns the folder, for `from_pretrained` and `Predictor.load`.

    `repository`: "user/name". `revision`: a branch, tag or commit. Only JSON, safetensors and Markdown are fetched.
    """
    hub: Any = require("huggingface_hub", extra="hub", purpose="downloading from the hub")
    return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(FILES), token=token))
