"""The videos that the visitors of the page ask about.

Memory and disk are bounded: only the last few watched videos stay in memory, a file is deleted when
no visitor shows it any more, and files that no visitor has chosen yet have a limit together.
"""

import collections
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from amuse_jax.ask.model import Model
from amuse_jax.ask.video import Video

MOST_VIDEOS = 16  # watched videos in memory
IDLE_SECONDS = 3600.0  # after which a visitor is taken to be gone


class Sessions:
    """The visitors of the page, each with the video that the page shows.

    Several threads may use it.

    Args:
      model: watches the videos.
      folder: where uploads are. Files that are there already are kept; all others are deleted when
        no visitor shows them.
      most_bytes: the largest size of all files together that no visitor shows.
    """

    def __init__(self, model: Model, folder: Path, most_bytes: int):
        self._model, self._folder, self._most_bytes = model, folder.resolve(), most_bytes
        self._kept = self._files()
        self._shown: dict[str, tuple[Path, float]] = {}  # the file, and when it was last used
        self._videos: collections.OrderedDict[Path, Video] = collections.OrderedDict()
        # One visitor watches a file while others that chose the same file wait.
        self._gates: weakref.WeakValueDictionary[Path, threading.Lock]
        self._gates = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def keep_files(self) -> None:
        """Keep all files that are in the folder now, such as examples, until the server ends."""
        self._kept = self._files()

    def choose(self, session: str, path: str | None) -> Path | None:
        """Note the video that a visitor has chosen; the one before is deleted.

        Args:
          session: the visitor.
          path: the file; None if the visitor has removed the video.

        Returns:
          The file; None if there is none in the folder of the uploads.
        """
        file = None if path is None else Path(path).resolve()
        if file is not None and not (file.is_relative_to(self._folder) and file.is_file()):
            file = None
        with self._lock:
            before, _ = self._shown.pop(session, (None, 0.0))
            if file is not None:
                self._shown[session] = file, time.monotonic()
            self._forget(before)
        return file

    def watch(self, session: str, progress: Callable[[str], None]) -> Video | None:
        """Return the video that a visitor has chosen, watched; None if it is not there any more.

        Args:
          session: the visitor.
          progress: called with each step of `Model.watch`, if the video is watched now.

        Raises:
          VideoError: the video cannot be used.
        """
        with self._lock:
            file, _ = self._shown.get(session, (None, 0.0))
            if file is None:
                return None
            self._shown[session] = file, time.monotonic()
            gate = self._gates.setdefault(file, threading.Lock())
        with gate:
            video = self._videos.get(file) or self._model.watch(file, progress=progress)
            with self._lock:
                if any(file == shown for shown, _ in self._shown.values()):
                    self._videos[file] = video
                    self._videos.move_to_end(file)
                while len(self._videos) > MOST_VIDEOS:
                    self._videos.popitem(last=False)
        return video

    def end(self, session: str) -> None:
        """Delete what a visitor has uploaded, when the visitor has left the page."""
        self.choose(session, None)

    def sweep(self) -> None:
        """Forget visitors that have done nothing for an hour, and delete files of nobody.

        An upload that breaks off leaves such a file. Those that are older than an hour are deleted,
        and the oldest ones as long as all of them together are larger than `most_bytes`.
        """
        now = time.monotonic()
        for session, (_, used) in list(self._shown.items()):
            if now - used > IDLE_SECONDS:
                self.end(session)
        with self._lock:
            shown = {file for file, _ in self._shown.values()}
            total = 0
            for size, age, file in _by_age(self._files() - self._kept - shown):
                total += size
                if age > IDLE_SECONDS or total > self._most_bytes:
                    self._forget(file)

    def _forget(self, file: Path | None) -> None:
        """Delete a file that no visitor shows, with its folder if that is empty then."""
        if file is None or any(file == shown for shown, _ in self._shown.values()):
            return
        if file in self._kept:
            return
        self._videos.pop(file, None)
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty
            if file.parent != self._folder:
                file.parent.rmdir()

    def _files(self) -> frozenset[Path]:
        return frozenset(path for path in self._folder.rglob('*') if path.is_file())


def _by_age(files: Iterable[Path]) -> list[tuple[int, float, Path]]:
    """Return the size in bytes and the age in seconds of each file, with the newest file first."""
    found, now = [], time.time()
    for file in files:
        with contextlib.suppress(OSError):  # it was deleted meanwhile
            status = file.stat()
            found.append((status.st_size, now - status.st_ctime, file))
    return sorted(found, key=lambda each: each[1])
