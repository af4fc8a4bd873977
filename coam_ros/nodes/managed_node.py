"""What the nodes share: parameters, a life cycle that says why it failed, autostart, main."""

from __future__ import annotations

from collections.abc import Callable
import concurrent.futures
from concurrent.futures import ThreadPoolExecutor
import signal
import traceback
from typing import Any, Generic, TypeVar

from coam_ros.nodes.logging_bridge import LoggingBridge
from coam_ros.nodes.parameters import (
    declare_parameters,
    find_unknown_overrides,
    read_parameters,
)
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

P = TypeVar('P')

# What a wrong path, map, model or parameter raises; all else is a fault of the program.
_EXPECTED_ERRORS = (OSError, ValueError, RuntimeError, ImportError)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNAL_PERIOD_S = 0.2


class ManagedNode(LifecycleNode, Generic[P]):
    """A lifecycle node that can start by itself.

    Children implement `configure`, `activate`, `deactivate` and `cleanup`, which raise when they
    fail; the transition then fails and the log says why.

    Attributes:
        parameters: current values, exchanged as a whole when they change.
        lifecycle_label: unconfigured, inactive, active or finalized.
        last_error: why the last transition failed, '' when it did not.
        exit_status: of the process when it ends, see `give_up`.
        steady_clock: for timers that must run whatever simulated time does.
        pool: threads for what takes a while, see `done_aside`.
    """

    def __init__(self, name: str, parameters_class: type[P], **kwargs: Any) -> None:  # noqa: ANN401
        """Declare the parameters and, with autostart, start once the node is spun.

        Args:
            name: of the node.
            parameters_class: dataclass of its parameters; the one named autostart is used here.
            **kwargs: of rclpy's Node.

        Raises:
            ValueError: a parameter with a value that it cannot have.
        """
        super().__init__(name, **kwargs)
        self._logging_bridge = LoggingBridge(self.get_logger())
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.pool = ThreadPoolExecutor(2, thread_name_prefix='coam_aside')
        self.lifecycle_label = 'unconfigured'
        self.last_error = ''
        self.exit_status = 0
        self._parameters_class = parameters_class
        try:
            self.parameters = declare_parameters(self, parameters_class)
        except ValueError as error:
            self.get_logger().fatal(str(error))
            self._logging_bridge.close()
            super().destroy_node()
            raise
        for unknown, nearest in find_unknown_overrides(self).items():
            hint = f'did you mean {nearest!r}?' if nearest else 'it is ignored.'
            self.get_logger().warning(f'There is no parameter {unknown!r}; {hint}')
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        if self.parameters.autostart:
            self._autostart_timer = self.create_timer(
                0.0, self._autostart, clock=self.steady_clock
            )

    def configure(self) -> None:
        """Load what the node needs."""
        raise NotImplementedError

    def activate(self) -> None:
        """Start to work."""
        raise NotImplementedError

    def deactivate(self) -> None:
        """Stop to work; also called when `activate` failed."""
        raise NotImplementedError

    def cleanup(self) -> None:
        """Free what `configure` loaded, be it all of it or a part."""
        raise NotImplementedError

    def use_parameters(self) -> None:
        """Take over `parameters` after they changed."""

    def give_up(self) -> None:
        """End the process with a status that asks for a new one; from any thread."""
        self.exit_status = 1
        self.context.try_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; on failure the node stays unconfigured and the log says why."""
        self.last_error = ''
        return self._attempt('configure', self.configure, 'inactive', undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate."""
        self.last_error = ''
        super().on_activate(state)
        return self._attempt('activate', self.activate, 'active', undo=lambda: self._stop(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate."""
        return self._attempt('deactivate', lambda: self._stop(state), 'inactive')

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        return self._attempt('clean up', self.cleanup, 'unconfigured')

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, whatever the state."""
        return self._attempt('shut down', lambda: self._stop_and_free(state), 'finalized')

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a fault of the program; the node can be configured again."""
        result = self._attempt(
            'free everything', lambda: self._stop_and_free(state), 'unconfigured'
        )
        if result != TransitionCallbackReturn.SUCCESS:
            self.lifecycle_label = 'finalized'
        return result

    def destroy_node(self) -> None:
        """Stop, free everything and destroy the node."""
        self.deactivate()
        self.cleanup()
        self.pool.shutdown(wait=False)
        self._logging_bridge.close()
        super().destroy_node()

    def report_error(self, what: str, error: Exception) -> bool:
        """Keep and log why something failed, a fault of the program with its traceback.

        Args:
            what: could not be done.
            error: that is being handled.

        Returns:
            Whether it is of a kind that wrong input raises.
        """
        is_expected = isinstance(error, _EXPECTED_ERRORS)
        self.last_error = f'Cannot {what}: {error}'
        self.get_logger().error(
            self.last_error if is_expected else f'Cannot {what}:\n{traceback.format_exc()}'
        )
        return is_expected

    async def done_aside(
        self,
        function: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401 - of the function
        **options: Any,  # noqa: ANN401
    ) -> concurrent.futures.Future:
        """Call a function in a thread of the pool; returns its future once it is done.

        For services of a callback group of their own: all other callbacks go on meanwhile.
        """
        done = Future(executor=self.executor)
        job = self.pool.submit(function, *arguments, **options)
        job.add_done_callback(lambda _: self._finish(done))
        await done
        return job

    def _finish(self, future: Future) -> None:
        future.set_result(None)
        # rclpy looks at a pending coroutine only when something wakes the executor.
        self.executor.wake()

    def _on_change_state(self, request: Any, response: Any) -> Any:  # noqa: ANN401
        """Refuse what does not fit the state: rclpy would end the executor with an error."""
        machine, asked = self._state_machine, request.transition
        fitting = {label: number for number, label, *_ in machine.available_transitions}
        if asked.label in fitting or (not asked.label and asked.id in fitting.values()):
            return self._change_state(request, response)
        names = {number: label for number, label, *_ in machine.transition_graph}
        self.get_logger().warning(
            f'The transition {asked.label or names.get(asked.id, asked.id)} does not fit the '
            f'state {machine.current_state[1]} and is refused; wanted one of {", ".join(fitting)}.'
        )
        response.success = False
        return response

    def _stop(self, state: LifecycleState) -> None:
        """Stop to work, and the publishers with it."""
        self.deactivate()
        super().on_deactivate(state)

    def _stop_and_free(self, state: LifecycleState) -> None:
        try:
            self._stop(state)
        finally:
            self.cleanup()

    def _attempt(
        self,
        what: str,
        action: Callable[[], None],
        success_label: str,
        undo: Callable[[], None] | None = None,
    ) -> TransitionCallbackReturn:
        """Do what a transition asks for; what fails and cannot be undone goes on to `on_error`."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - rclpy swallows what a transition raises
            is_expected = self.report_error(what, error)
            if undo is None:
                return TransitionCallbackReturn.ERROR
            undo()
            # After ERROR the node goes back to unconfigured, whatever the transition.
            failure, fault = TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR
            return failure if is_expected else fault
        self.lifecycle_label = success_label
        return TransitionCallbackReturn.SUCCESS

    def _check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            read_parameters(self, self._parameters_class, changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, changes: list[Parameter]) -> None:
        self.parameters = read_parameters(self, self._parameters_class)
        self.use_parameters()

    def _autostart(self) -> None:
        self.destroy_timer(self._autostart_timer)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()


def _ignore_stop_signals() -> None:
    # Another Ctrl-C, or that of launch beside the terminal's, would cut short what is saved.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run(make_node: Callable[[], ManagedNode], args: list[str] | None = None) -> None:
    """Spin a node until the process is told to stop."""
    node, is_stopping = None, False

    def stop(_number: int, _frame: object) -> None:
        nonlocal is_stopping
        is_stopping = True
        # At once: between here and where this is caught the next one may come.
        _ignore_stop_signals()
        # Also out of what takes long, such as to configure. It can get lost: Python drops what is
        # raised in a destructor, and rclpy's C++ makes another error of it.
        raise KeyboardInterrupt

    try:
        for number in _STOP_SIGNALS:
            signal.signal(number, stop)
        # rclpy's own handlers end ROS at once; what a node says while it saves would find none.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = make_node()
        except ValueError:
            # A parameter; the node has said which.
            raise SystemExit(1) from None
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and not is_stopping:
            # Python handles a signal when the wait of ROS is over.
            executor.spin_once(timeout_sec=_SIGNAL_PERIOD_S)
    except KeyboardInterrupt:
        pass
    except Exception:
        # What was under way then fails, with errors of many types; a node that gave up has ended
        # ROS. All others go on.
        if rclpy.ok() and not is_stopping:
            raise
    finally:
        _ignore_stop_signals()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    if node is not None and node.exit_status:
        raise SystemExit(node.exit_status)
