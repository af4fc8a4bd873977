"""Nodes in processes of their own, as they run on a robot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from types import TracebackType

_STOP_TIMEOUT_S = 10.0
# prctl(PR_SET_PDEATHSIG): no node outlives a demo that was killed without a chance to clean up. A
# demo in the background of a script has inherited that interrupts are ignored; its nodes must not.
_DIE_WITH_PARENT = (
    'import ctypes, signal; signal.signal(signal.SIGINT, signal.default_int_handler); '
    'ctypes.CDLL(None).prctl(1, signal.SIGINT)'
)
_NUM_LOG_LINES = 15


class NodeDiedError(RuntimeError):
    """A node ended before its time; the message holds the end of its log."""


@contextmanager
def own_transport(domain_id: int, directory: Path) -> Iterator[None]:
    """Let this process and its children talk to each other only, without losing images.

    A profile of Fast DDS that the user's environment names stands.

    Args:
        domain_id: ROS domain of their own, 0..101.
        directory: takes what ROS itself logs.
    """
    profile = resources.files('coam_ros.nodes') / 'fastdds.xml'
    profiles = dict.fromkeys(
        ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'), str(profile)
    )
    own = {
        'ROS_DOMAIN_ID': str(domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        # By default below HOME, without which, or where it is read-only, no node starts.
        'ROS_LOG_DIR': str((directory / 'ros_log').resolve()),
    }
    former = dict(os.environ)
    os.environ.update({**profiles, **former, **own})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(former)


class ChildNode:
    """One node in a child process; a context manager that ends it."""

    def __init__(
        self,
        name: str,
        entry_point: str,
        namespace: str,
        parameters: Mapping[str, str | float],
        log_path: Path,
    ) -> None:
        """Start the process.

        Args:
            name: for messages.
            entry_point: 'package.module:function'.
            namespace: of the node.
            parameters: ROS parameters.
            log_path: takes all that the node prints.
        """
        module, function = entry_point.split(':')
        # Not the installed script: with this line an edited checkout runs without building.
        code = f'{_DIE_WITH_PARENT}; from {module} import {function}; {function}()'
        command = [sys.executable, '-c', code]
        command += ['--ros-args', '-r', f'__ns:={namespace}']
        for key, value in parameters.items():
            # A JSON text is a YAML text: quotes, colons and digits in a path stay a string.
            command += ['-p', f'{key}:={json.dumps(value)}']
        self.name = name
        self._log_path = log_path
        with log_path.open('wb') as log:
            # Its own session: Ctrl-C reaches this process alone, which then ends the nodes.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> ChildNode:
        """Return the running node."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the node."""
        self.stop()

    def check(self) -> None:
        """Make sure that the node runs.

        Raises:
            NodeDiedError: when it does not.
        """
        status = self._process.poll()
        if status is not None:
            raise NodeDiedError(
                f'The node {self.name} ended with status {status}, wanted it to run to the end of '
                f'the demo. Its log is {self._log_path}, which ends with:\n{self.read_log_end()}'
            )

    def read_log_end(self) -> str:
        """Return the last lines of the log."""
        lines = self._log_path.read_text(errors='replace').splitlines()
        return '\n'.join(f'  {line}' for line in lines[-_NUM_LOG_LINES:])

    def peak_memory_bytes(self) -> int | None:
        """Largest resident memory so far; None where /proc does not tell."""
        try:
            status = Path(f'/proc/{self._process.pid}/status').read_text()
        except OSError:
            return None
        kibibytes = [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM:')]
        return int(kibibytes[0]) * 1024 if kibibytes else None

    def stop(self) -> None:
        """End the node as Ctrl-C does; kill it when that takes too long."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
