"""Parameters of the nodes, each declared once: default, description, range.

A node's parameters are the fields of one frozen dataclass. Fields of a dataclass type, such as
the core's own settings, stand for their fields.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from dataclasses import dataclass, field
import difflib
from typing import Any, TypeVar

from coam_ros.inference.model import BACKENDS
from coam_ros.localization import LocalizationConfig, TrackerConfig
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

T = TypeVar('T')

_TYPE_NAMES = {bool: 'bool', int: 'int', float: 'double', str: 'string'}


def _parameter(
    default: bool | int | float | str,
    description: str,
    *,
    range: tuple[float, float] | None = None,  # noqa: A002 - what the metadata call it
    choices: tuple[str, ...] = (),
    read_only: bool = True,
) -> Any:  # noqa: ANN401 - what dataclasses.field returns
    metadata = {
        'description': description,
        'range': range,
        'choices': choices,
        'read_only': read_only,
    }
    return field(default=default, metadata=metadata)


def _autostart() -> Any:  # noqa: ANN401
    return _parameter(
        True,
        'Configure and activate the node by itself; false leaves that to a lifecycle manager.',
    )


def _camera_frame() -> Any:  # noqa: ANN401
    return _parameter('', 'Optical frame of the camera; empty = the frame_id of the images.')


def _image_transport() -> Any:  # noqa: ANN401
    return _parameter(
        'raw',
        'raw: subscribe to image; compressed: to image/compressed.',
        choices=('raw', 'compressed'),
    )


def _is_rectified() -> Any:  # noqa: ANN401
    return _parameter(
        False,
        'The images are rectified: P of camera_info holds, without distortion. Where camera_info '
        'has a distortion, rectified images need this.',
    )


@dataclass(frozen=True)
class MatcherParameters:
    """Parameters of the matcher."""

    model_file_path: str = _parameter(
        '', 'Folder of the model (manifest and networks); empty = the one that is shipped.'
    )
    engine_file_path: str = _parameter(
        '',
        'Folder of the TensorRT engines, which are built there where they are missing or do not '
        'fit; empty = in ~/.cache/coam_ros/engines.',
    )
    force_engine_update: bool = _parameter(
        False, 'Build the TensorRT engines even where fitting ones are there.'
    )
    enable_fp16: bool = _parameter(
        True, 'TensorRT computes in fp16 with fp32 islands; false = fp32 throughout.'
    )
    engine_width_px: int = _parameter(
        640,
        'Width for which TensorRT engines are built; images are fitted inside width x height, so '
        "the camera's aspect is best [px].",
        range=(32, 10_000),
    )
    engine_height_px: int = _parameter(
        480, 'Height for which TensorRT engines are built [px].', range=(32, 10_000)
    )
    backend: str = _parameter(
        'auto',
        'Library that runs the model; auto = the fastest present, cpu = the fastest of those '
        'without a GPU.',
        choices=BACKENDS,
    )
    num_threads: int = _parameter(
        0, 'CPU threads of the model; 0 = one for each physical core.', range=(0, 256)
    )
    image_area_px: int = _parameter(
        0,
        'Images are resized to about this many pixels before matching: fewer are faster, more '
        'are finer, of the included model at least 131072 (2048 blocks); 0 = what it was made for '
        '(640 x 480). TensorRT takes the size of its '
        'engines instead.',
        range=(0, 10_000_000),
    )
    map_path: str = _parameter(
        '', 'Folder of the map; empty = only what arrives on the topic keyframes.'
    )
    feature_cache_mb: int = _parameter(
        512,
        'Bound of the memory for features of keyframes [MiB]; about 3 MiB a keyframe.',
        range=(16, 1_000_000),
    )
    map_frame: str = _parameter('map', 'Frame in which poses are published.')
    odom_frame: str = _parameter('odom', 'Frame of the odometry, for publish_tf.')
    base_frame: str = _parameter(
        '', 'Frame whose pose is published, found by TF; empty = the camera itself, without TF.'
    )
    camera_frame: str = _camera_frame()
    image_transport: str = _image_transport()
    is_rectified: bool = _is_rectified()
    max_rate_hz: float = _parameter(
        0.0,
        'Most images localized in a second, of which the newest are taken [Hz]; 0 = as many as '
        'the machine can.',
        range=(0.0, 1000.0),
        read_only=False,
    )
    relocalize_timeout_s: float = _parameter(
        5.0,
        'How long the service relocalize waits where the request does not say [s].',
        range=(0.1, 600.0),
        read_only=False,
    )
    prior_radius_m: float = _parameter(
        5.0,
        'Keyframes are searched within this distance of a prior pose, plus three of its standard '
        'deviations [m].',
        range=(0.1, 10_000.0),
        read_only=False,
    )
    prior_lifetime_s: float = _parameter(
        10.0,
        'How long a pose on initialpose narrows the search, unless the robot is localized before '
        '[s].',
        range=(0.1, 3600.0),
        read_only=False,
    )
    publish_tf: bool = _parameter(
        False, 'Publish map_frame -> odom_frame; leave it to one node of the robot.'
    )
    transform_tolerance_s: float = _parameter(
        0.1, 'How far ahead map -> odom is stamped [s].', range=(0.0, 10.0), read_only=False
    )
    tf_timeout_s: float = _parameter(
        0.2,
        'How long to wait for the transforms at the stamp of an image [s].',
        range=(0.0, 10.0),
        read_only=False,
    )
    autostart: bool = _autostart()
    localization: LocalizationConfig = field(default_factory=LocalizationConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check choices and what the fields mean together.

        Raises:
            ValueError: naming the parameter.
        """
        _check_choices(self)
        if self.publish_tf and self.odom_frame in ('', self.map_frame):
            raise ValueError(
                f'odom_frame is {self.odom_frame!r} with publish_tf; wanted a frame other than '
                f'map_frame {self.map_frame!r}. Set odom_frame or switch publish_tf off.'
            )


@dataclass(frozen=True)
class MapServerParameters:
    """Parameters of the map server."""

    map_path: str = _parameter('', 'Folder of the map to publish.')
    max_message_mb: float = _parameter(
        4.0,
        'Size of a message that a map is split into; a larger keyframe goes alone [MiB].',
        range=(0.1, 1000.0),
    )
    autostart: bool = _autostart()


@dataclass(frozen=True)
class MapRecorderParameters:
    """Parameters of the map recorder."""

    map_path: str = _parameter(
        '', 'Folder of the map, written when the node is deactivated or ends, and meanwhile.'
    )
    overwrite: bool = _parameter(False, 'Replace a map that is there.')
    save_period_s: float = _parameter(
        60.0,
        'How often the map is also written while it is recorded, if there is something new; 0 '
        'waits for the end [s].',
        range=(0.0, 86400.0),
        read_only=False,
    )
    map_frame: str = _parameter('map', 'Frame of the map and of the poses.')
    pose_source: str = _parameter(
        'tf',
        'tf: where TF has the camera in map_frame; topic: what comes on camera_pose.',
        choices=('tf', 'topic'),
    )
    camera_frame: str = _camera_frame()
    image_transport: str = _image_transport()
    is_rectified: bool = _is_rectified()
    uses_depth: bool = _parameter(
        True, 'Keep the depth image of each keyframe; without it see `coam map triangulate`.'
    )
    min_distance_m: float = _parameter(
        0.3,
        'An image becomes a keyframe when no keyframe is nearer than this and turned by less than '
        'min_angle_deg [m].',
        range=(0.0, 100.0),
        read_only=False,
    )
    min_angle_deg: float = _parameter(
        15.0, 'See min_distance_m [deg].', range=(0.0, 180.0), read_only=False
    )
    max_delay_s: float = _parameter(
        0.02,
        'Depth images, and poses of camera_pose, this far from the stamp of an image belong to '
        'it [s].',
        range=(0.0, 1.0),
        read_only=False,
    )
    max_wait_s: float = _parameter(
        1.0,
        'How long an image waits for its pose and depth, by the stamps of the images [s]. Of a '
        'camera that sends more than 58 images in that time some are passed over.',
        range=(0.0, 10.0),
        read_only=False,
    )
    autostart: bool = _autostart()

    def __post_init__(self) -> None:
        """Check the choices."""
        _check_choices(self)


@dataclass(frozen=True)
class ParameterField:
    """One parameter as ROS sees it.

    Attributes:
        name: as in a parameter file.
        default: its value where nothing else is said; its type is the type.
        description: for people, with the unit.
        range: smallest and largest value, or None.
        choices: allowed words, or empty.
        read_only: fixed once the node runs.
    """

    name: str
    default: bool | int | float | str
    description: str
    range: tuple[float, float] | None
    choices: tuple[str, ...]
    read_only: bool

    @property
    def type_name(self) -> str:
        """bool, int, double or string."""
        return _TYPE_NAMES[type(self.default)]


def parameter_fields(parameters_class: type) -> Iterator[ParameterField]:
    """List the parameters that a dataclass stands for, nested ones in their place."""
    for entry in dataclasses.fields(parameters_class):
        if entry.default is dataclasses.MISSING:
            yield from parameter_fields(type(entry.default_factory()))
            continue
        metadata = entry.metadata
        yield ParameterField(
            name=entry.name,
            default=entry.default,
            description=metadata['description'],
            range=metadata.get('range'),
            choices=metadata.get('choices', ()),
            # The settings of the core are for tuning; structure is marked where it is declared.
            read_only=metadata.get('read_only', False),
        )


def declare_parameters(node: Node, parameters_class: type[T]) -> T:
    """Declare the parameters of a node and read them.

    Raises:
        ValueError: a value of the wrong type, out of range or not allowed, naming the parameter.
    """
    for entry in parameter_fields(parameters_class):
        _check_override(node, entry)
        node.declare_parameter(entry.name, entry.default, _descriptor(entry))
    return read_parameters(node, parameters_class)


def read_parameters(
    node: Node, parameters_class: type[T], changes: list[Parameter] | None = None
) -> T:
    """Read declared parameters into their dataclass.

    Args:
        node: where they are declared.
        parameters_class: dataclass of the fields.
        changes: values that are about to be set.

    Raises:
        ValueError: values that do not go together.
    """
    changed = {parameter.name: parameter.value for parameter in changes or ()}
    values = {}
    for entry in dataclasses.fields(parameters_class):
        if entry.default is dataclasses.MISSING:
            values[entry.name] = read_parameters(node, type(entry.default_factory()), changes)
        else:
            value = node.get_parameter(entry.name).value
            values[entry.name] = changed.get(entry.name, value)
    return parameters_class(**values)


def find_unknown_overrides(node: Node) -> dict[str, str]:
    """Find parameters given to a node that it does not have: a misspelt key means the default.

    Returns:
        Unknown name -> the nearest known name, or '' when there is none.
    """
    given = _overrides(node)
    unknown = [
        name
        for name in given
        if not node.has_parameter(name) and not name.startswith('qos_overrides.')
    ]
    known = list(node._parameters)
    return {name: next(iter(difflib.get_close_matches(name, known, n=1)), '') for name in unknown}


def _overrides(node: Node) -> dict[str, Parameter]:
    # rclpy has no public way to them; without it neither a misspelt key nor an int that was
    # given for a double can be told from silence or a bare traceback.
    return node._parameter_overrides


def _check_override(node: Node, entry: ParameterField) -> None:
    """Check a value from outside before rclpy does, whose errors name no remedy."""
    given = _overrides(node).get(entry.name)
    if given is None:
        return
    value = given.value
    if entry.type_name == 'double' and type(value) is int:
        # `max_rate_hz: 5` in YAML is an int, and what its author means is plain.
        value = float(value)
        _overrides(node)[entry.name] = Parameter(entry.name, value=value)
    if type(value) is not type(entry.default):
        raise ValueError(
            f'Parameter {entry.name} is {value!r} ({type(value).__name__}); wanted a '
            f'{entry.type_name} such as {entry.default!r}. Correct the parameter file or argument.'
        )
    if entry.range is not None and not entry.range[0] <= value <= entry.range[1]:
        raise ValueError(
            f'Parameter {entry.name} is {value}; wanted {entry.range[0]:g} .. {entry.range[1]:g}. '
            f'{entry.description}'
        )


def _check_choices(parameters: Any) -> None:  # noqa: ANN401 - any of the dataclasses here
    for entry in dataclasses.fields(parameters):
        choices = entry.metadata.get('choices')
        value = getattr(parameters, entry.name)
        if choices and value not in choices:
            raise ValueError(
                f'Parameter {entry.name} is {value!r}; wanted one of {", ".join(choices)}. '
                f'{entry.metadata["description"]}'
            )


def _descriptor(entry: ParameterField) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=entry.description, read_only=entry.read_only)
    if entry.choices:
        descriptor.additional_constraints = f'one of {", ".join(entry.choices)}'
    if entry.range is not None:
        minimum, maximum = entry.range
        if isinstance(entry.default, int):
            span = IntegerRange(from_value=int(minimum), to_value=int(maximum), step=1)
            descriptor.integer_range = [span]
        else:
            span = FloatingPointRange(from_value=float(minimum), to_value=float(maximum))
            descriptor.floating_point_range = [span]
    return descriptor
