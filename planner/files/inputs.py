"""Inputs of models that users have: arrays by name in ``.npz`` files, or an ``.npy`` file each."""

import zipfile
from pathlib import Path

import numpy as np

from planner.model import InputError


def load_inputs(path: Path) -> list[dict[str, np.ndarray]]:
    """Return the batches of requests that lie in a file or a folder.

    A ``.npz`` file is a batch: an array by the name of each input, requests along its batch axis. A folder holds such
    files, or one ``NAME.npy`` for each input.

    Raises
    ------
    InputError
        There is nothing, or no arrays can be read from it.
    """
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if files:
            return [_read_npz(file) for file in files]
        arrays = {file.stem: _read_npy(file) for file in sorted(path.glob("*.npy"))}
        if not arrays:
            raise InputError(f"{path}: expected .npz files, or NAME.npy for each input; the folder has neither")
        return [arrays]
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a .npz file or a folder of them")
    return [_read_npz(path)]


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        raise InputError(f"{path}: holds one array; expected a .npz file with an array for each input")
    return arrays


def _read_npy(path: Path) -> np.ndarray:
    array = _load(path)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: holds several arrays; expected one")
    return array


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: holds no arrays of numbers or texts ({' '.join(str(error).split())[:120]})"
        ) from None
