"""The searches of tuned methods in folders of results that are joined: each suite's lie in one file of Optuna's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from grbench.errors import RunError
from grbench.results.record import TRIALS
from grbench.temporary import replacing
from grbench.tuning.search import STUDIES


def copy_searches(sources: Sequence[Path], out: Path, note: Callable[[str], object]) -> None:
    """Copies the searches of each suite to `out` where one folder alone has any. Those of several cannot be joined,
    because what a trial tries follows from the trials before it: `note` is told so. Raises RunError where the disk is
    full or the folder cannot be written."""
    found: dict[str, list[Path]] = {}
    for path in _files([out, *sources]):
        found.setdefault(path.parent.parent.name, []).append(path)
    for suite, paths in found.items():
        target = out / suite / TRIALS / STUDIES
        if len(paths) > 1:
            note(
                f"{suite}: the searches of {len(paths)} folders cannot be joined ({', '.join(map(str, paths))}); "
                + (f"{target} stays" if target.is_file() else "none is copied")
                + ": a search that grbench run makes again trains no trial of which there is a record"
            )
        elif paths[0].resolve() != target.resolve():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as partial:
                    shutil.copyfile(paths[0], partial)
            except OSError as error:
                raise RunError(f"{target}: cannot be written ({error.strerror or error})") from error


def _files(folders: Iterable[Path]) -> list[Path]:
    """The files of searches in the folders, each once; of links, none."""
    files: dict[Path, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob(f"{TRIALS}/{STUDIES}")) if folder.is_dir() else ():
            if path.is_file() and not path.is_symlink():
                files.setdefault(path.resolve(), path)
    return list(files.values())
