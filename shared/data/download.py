"""Downloads: announced, verified, never left incomplete."""

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from shared.data.places import file_hash
from shared.errors import UsageError
from shared.files import replacing


class Download(NamedTuple):
    """A file to download: URL, size in bytes and SHA-256."""

    url: str
    size: int
    sha256: str


def fetch(name: str, downloads: list[Download], directory: Path, timeout: float = 10) -> list[Path]:
    """Paths of files, in order; those missing from `directory` are downloaded.

    Args:
        name: name of the data set, for messages.
        downloads: the files.
        directory: where they are kept; created if needed.
        timeout: seconds to wait for the server.

    Raises:
        UsageError: the server is unreachable, or a file has another hash.
    """
    paths = []
    for download in downloads:
        path = directory / download.url.rpartition("/")[2]
        if not path.exists():
            download_file(name, download, path, timeout)
        paths.append(path)
    return paths


def verified(paths: list[Path], downloads: list[Download]) -> list[Path]:
    """The same paths, after verifying each file's hash.

    Raises:
        UsageError: a file is damaged.
    """
    for path, download in zip(paths, downloads, strict=True):
        if file_hash(path) != download.sha256:
            raise UsageError(f"{path} is damaged: delete it and run again")
    return paths


def download_file(name: str, download: Download, path: Path, timeout: float) -> None:
    """Downloads one file to `path`; see `fetch`."""
    from tqdm import tqdm

    print(f"downloading {name}: {download.size / 1e6:,.1f} MB from {download.url} to {path}", file=sys.stderr)
    try:
        with urllib.request.urlopen(download.url, timeout=timeout) as answer:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as unfinished:
                with (
                    open(unfinished, "wb") as file,
                    tqdm(total=download.size, unit="B", unit_scale=True, disable=None) as bar,
                ):
                    while block := answer.read(1 << 20):
                        file.write(block)
                        bar.update(len(block))
                if file_hash(unfinished) != download.sha256:
                    raise UsageError(f"{download.url} did not send the file that was expected: try again later")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(
            f"{name} is not in the data directory and cannot be downloaded ({reason}): "
            f"put {path.name} in {path.parent}, or name the folder that has tfds/{name} with --data-dir"
        ) from None
