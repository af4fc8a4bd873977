"""The map server: a map from disk onto the topic keyframes, for whoever comes and when."""

from __future__ import annotations

from typing import Any

from coam_msgs.srv import LoadMap
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map
from coam_ros.nodes import interfaces, qos
from coam_ros.nodes.managed_node import ManagedNode, run
from coam_ros.nodes.map_messages import map_to_messages, split_map
from coam_ros.nodes.parameters import MapServerParameters
from rclpy.publisher import Publisher


class MapServerNode(ManagedNode[MapServerParameters]):
    """Publishes a keyframe map in messages of bounded size and keeps them for late subscribers."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Declare parameters and the service; the map waits for `configure`."""
        super().__init__('map_server', MapServerParameters, **kwargs)
        self._map: KeyframeMap | None = None
        self._removed_ids: set[int] = set()
        self._publisher: Publisher | None = None
        load = interfaces.SERVER_LOAD_MAP
        self.create_service(load.type, load.name, self._on_load_map)

    def configure(self) -> None:
        """Load the map.

        Raises:
            ValueError: no path, or no map there.
            OSError: the map cannot be read.
        """
        if not self.parameters.map_path:
            raise ValueError(
                'map_path is empty; wanted the folder of a map as `coam map build` writes it. '
                'Set the parameter map_path.'
            )
        self._map = load_map(self.parameters.map_path)
        self._removed_ids = set()

    def activate(self) -> None:
        """Publish the map."""
        self._publish()

    def deactivate(self) -> None:
        """Take the map back: subscribers that come later get nothing."""
        if self._publisher is not None:
            self.destroy_publisher(self._publisher)
            self._publisher = None

    def cleanup(self) -> None:
        """Free the map."""
        self._map = None

    def _publish(self) -> None:
        self.deactivate()
        parts = split_map(self._map, int(self.parameters.max_message_mb * 2**20))
        topic = interfaces.KEYFRAMES
        # A publisher for each map, of the depth that holds all of it and nothing of the former.
        self._publisher = self.create_publisher(
            topic.type, topic.name, qos.latched(depth=len(parts))
        )
        stamp = self.get_clock().now().to_msg()
        for message in map_to_messages(self._map, parts, stamp, self._removed_ids):
            self._publisher.publish(message)
        num_bytes = sum(keyframe.num_bytes for keyframe in self._map)
        self.get_logger().info(
            f'map={self._map.map_id} keyframes={len(self._map)} messages={len(parts)} '
            f'size={num_bytes / 2**20:.1f} MiB published on {self._publisher.topic_name}'
        )

    def _replace(self, keyframe_map: KeyframeMap) -> None:
        """Take another map, which may be an earlier state of the same: matchers merge these."""
        known = set()
        if keyframe_map.map_id == self._map.map_id:
            known = self._removed_ids | {keyframe.id for keyframe in self._map}
        self._removed_ids = known - {keyframe.id for keyframe in keyframe_map}
        self._map = keyframe_map

    def _on_load_map(
        self, request: LoadMap.Request, response: LoadMap.Response
    ) -> LoadMap.Response:
        if self._map is None:
            response.message = 'The map server is not configured. Configure it first.'
            return response
        try:
            self._replace(load_map(request.path))
        except (OSError, ValueError) as error:
            response.message = f'{error} The former map stays in use.'
            self.get_logger().error(response.message)
        else:
            response.success, response.message = True, f'Loaded {request.path}.'
            if self.lifecycle_label == 'active':
                self._publish()
        response.num_keyframes = len(self._map)
        return response


def main(args: list[str] | None = None) -> None:
    """Run the node until the process is told to stop."""
    run(MapServerNode, args)
