from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import errno
import fcntl
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time
import zlib

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping import map_files, map_folder, storage
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.map_files import is_map
from coam_ros.mapping.storage import check_target, load_map, save_map
from map_samples import encode, make_image, make_keyframe
import numpy as np
import pytest

DISTORTED = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.5, (0.1, -0.2, 0.001, 0.002))


def make_map(num_keyframes: int = 3, **fields: object) -> KeyframeMap:
    keyframes = []
    for i in range(num_keyframes):
        T_map_camera = np.eye(4)
        T_map_camera[:3, 3] = i, 0.1, -1 / 3
        descriptor = np.random.default_rng(i).normal(size=16)
        keyframes.append(
            make_keyframe(
                id=2 * i,
                stamp_s=1.7e9 + i / 7,
                T_map_camera=T_map_camera,
                global_descriptor=descriptor / np.linalg.norm(descriptor),
                **fields,
            )
        )
    return KeyframeMap(keyframes, frame_id='hall', descriptor_model_id='model-1234')


def edit_json(directory: Path, change: callable) -> None:
    path = directory / 'map.json'
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))


def names_beside(directory: Path) -> list[str]:
    return [path.name for path in directory.parent.iterdir()]


@pytest.fixture(scope='module')
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp('maps') / 'map'
    save_map(make_map(), directory)
    return directory


@pytest.fixture
def saved(pristine: Path, tmp_path: Path) -> Path:
    # A copy: quicker than another flush to the disk.
    return Path(shutil.copytree(pristine, tmp_path / 'map'))


def test_loaded_map_equals_the_saved_one(tmp_path):
    odd = make_keyframe(
        id=101,
        camera=DISTORTED,
        image=encode(make_image(3), '.png'),
        depth=None,
        depth_scale_m=1 / 5000,
        landmark_pixels=[[1.25, 2.5], [3, 4]],
        landmark_points_map=[[1 / 3, 2, 3], [5e5 + 0.001, 5, 6]],
    )
    keyframe_map = KeyframeMap(
        [odd, *make_map()], frame_id='hall', descriptor_model_id='model-1234'
    )
    assert save_map(keyframe_map, tmp_path / 'deep' / 'map') == 4
    loaded = load_map(tmp_path / 'deep' / 'map')
    assert (loaded.map_id, loaded.frame_id) == (keyframe_map.map_id, 'hall')
    assert loaded.descriptor_model_id == 'model-1234'
    assert [keyframe.id for keyframe in loaded] == [101, 0, 2, 4]
    for keyframe in keyframe_map:
        # add() compares every field, and changes nothing for an equal keyframe.
        assert not loaded.add(keyframe)
    assert loaded.get(101).landmark_points_map[1].tolist() == [5e5 + 0.001, 5, 6]


def test_map_without_any_descriptor_is_saved_and_loaded(tmp_path):
    save_map(KeyframeMap([make_keyframe()]), tmp_path / 'map')
    assert next(iter(load_map(tmp_path / 'map'))).global_descriptor is None


def test_directory_is_one_that_people_can_look_into(saved):
    assert (saved / 'images' / '00000002.jpg').read_bytes() == make_keyframe().image
    assert (saved / 'depth' / '00000002.png').is_file()
    assert np.load(saved / 'descriptors.npy', allow_pickle=False).shape == (3, 16)
    assert len((saved / 'map.json').read_text().splitlines()) < 20
    assert is_map(saved)
    assert not is_map(saved.parent)


def test_new_map_replaces_the_old_one_without_leftovers(saved):
    save_map(make_map(1), saved)
    assert len(load_map(saved)) == 1
    assert not (saved / 'images' / '00000002.jpg').exists()
    assert names_beside(saved) == ['map']


def inodes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.rglob('0*')}


def test_what_a_grown_map_has_already_is_not_written_again(saved):
    before = inodes(saved)
    save_map(make_map(4), saved)
    after = inodes(saved)
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert len(load_map(saved)) == 4


def test_what_was_damaged_on_the_disk_is_written_anew(saved):
    flip(next((saved / 'images').iterdir()))
    save_map(make_map(), saved)
    assert len(load_map(saved)) == 3


def test_disk_without_second_names_for_files_takes_maps(saved, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, 'link', refuse)
    before = inodes(saved)
    save_map(make_map(4), saved)
    assert not before.items() & inodes(saved).items()
    assert len(load_map(saved)) == 4


def test_folder_may_be_named_by_a_link_or_from_home(saved, monkeypatch):
    link = saved.with_name('link')
    link.symlink_to(saved)
    save_map(make_map(1), link)
    assert link.is_symlink()
    assert len(load_map(saved)) == 1
    monkeypatch.setenv('HOME', str(saved.parent))
    assert len(load_map('~/map')) == 1
    with pytest.raises(FileNotFoundError, match='No folder ~nobody_there/map'):
        load_map('~nobody_there/map')


def test_who_stands_in_the_folder_is_told_to_enter_it_again(saved, monkeypatch, caplog):
    monkeypatch.chdir(saved)
    save_map(make_map(1), '.')
    assert f'{saved} was replaced, and the current folder with it' in caplog.text
    with pytest.raises(FileNotFoundError, match='`cd` to it again'):
        load_map('.')
    monkeypatch.chdir(saved)
    assert len(load_map('.')) == 1


def test_old_map_stays_when_overwriting_is_not_allowed(saved):
    with pytest.raises(FileExistsError, match='left alone'):
        save_map(make_map(1), saved, overwrite=False)
    assert len(load_map(saved)) == 3


def test_directory_that_is_not_a_map_is_never_overwritten(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match='not a map'):
        save_map(make_map(), tmp_path)
    with pytest.raises(FileExistsError, match='not a map'):
        check_target(tmp_path / 'thesis.tex', overwrite=True)
    assert (tmp_path / 'thesis.tex').exists()


def test_files_of_others_are_not_lost_with_the_map(saved):
    (saved / 'NOTES.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match=r'would be lost: NOTES\.txt'):
        save_map(make_map(1), saved)
    assert (saved / 'NOTES.txt').exists()
    assert len(load_map(saved)) == 3


def test_empty_map_is_not_saved_over_a_good_one(saved):
    with pytest.raises(MapFormatError, match='no keyframes'):
        save_map(KeyframeMap(), saved)
    assert len(load_map(saved)) == 3


def test_place_where_nothing_can_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / 'file').write_text('')
    for parent in (Path('/proc/maps'), tmp_path / 'file'):
        with pytest.raises(OSError, match=f'No map can be saved to {parent}/map: .*{parent}'):
            check_target(parent / 'map', overwrite=True)
        with pytest.raises(OSError, match='No map can be saved'):
            save_map(make_map(1), parent / 'map')


def test_mount_point_is_refused_before_the_work_with_what_to_mount():
    with pytest.raises(OSError, match=r'/proc is a mount point.*Mount its parent / instead'):
        check_target('/proc', overwrite=True)


def test_check_of_a_target_leaves_nothing(saved):
    check_target(saved.parent / 'some' / 'where' / 'map', overwrite=False)
    assert names_beside(saved) == ['map']
    check_target(saved, overwrite=True)
    assert len(load_map(saved)) == 3
    with pytest.raises(FileExistsError, match='holds a map already'):
        check_target(saved, overwrite=False)


# --- damaged maps ---------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def set_pose(directory: Path, T_map_camera: list) -> None:
    edit_json(directory, lambda h: h['keyframes'][1].update(T_map_camera=T_map_camera))


def set_file(directory: Path, key: str, **values: object) -> None:
    edit_json(directory, lambda h: h['keyframes'][1][key].update(values))


def set_key(directory: Path, key: str, value: object) -> None:
    edit_json(directory, lambda h: h.update({key: value}))


def set_keyframe_key(directory: Path, key: str, value: object) -> None:
    edit_json(directory, lambda h: h['keyframes'][1].update({key: value}))


def list_first_keyframe_twice(directory: Path) -> None:
    edit_json(directory, lambda h: h['keyframes'].append(h['keyframes'][0]))


def drop_pose(directory: Path) -> None:
    edit_json(directory, lambda h: h['keyframes'][1].pop('T_map_camera'))


def put_pickle_as_descriptors(directory: Path) -> None:
    np.save(directory / 'descriptors.npy', np.array([{}]), allow_pickle=True)
    list_descriptors(directory)


def put_garbage_as_descriptors(directory: Path) -> None:
    (directory / 'descriptors.npy').write_bytes(b'PK\x03\x04 no archive')
    list_descriptors(directory)


def list_descriptors(directory: Path) -> None:
    data = (directory / 'descriptors.npy').read_bytes()
    entry = {'file': 'descriptors.npy', 'num_bytes': len(data), 'crc32': zlib.crc32(data)}
    set_key(directory, 'descriptors', entry)


NAN_POSE = np.full((4, 4), np.nan).tolist()
MIRROR = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda d: set_key(d, 'format_version', 2), 'version 2.*reads version 1'),
        (lambda d: set_key(d, 'format', 'ply'), 'another program'),
        (lambda d: set_key(d, 'keyframes', []), '0 keyframes'),
        (lambda d: set_key(d, 'keyframes', 3), 'lists'),
        (lambda d: edit_json(d, lambda h: h.pop('frame_id')), 'lacks frame_id'),
        (lambda d: (d / 'map.json').unlink(), 'no map.json'),
        (lambda d: (d / 'map.json').write_text('[' * 100_000), 'not JSON'),
        (lambda d: cut(d / 'map.json'), 'not JSON'),
        (lambda d: flip(d / 'images' / '00000002.jpg'), '00000002.jpg has CRC-32'),
        (lambda d: (d / 'images' / '00000002.jpg').unlink(), '00000002.jpg cannot be read'),
        (lambda d: cut(d / 'images' / '00000002.jpg'), '00000002.jpg .*cut short'),
        (lambda d: cut(d / 'depth' / '00000002.png'), '00000002.png .*cut short'),
        (lambda d: (d / 'depth' / '00000002.png').unlink(), '00000002.png cannot be read'),
        (lambda d: cut(d / 'descriptors.npy'), 'descriptors.npy .*cut short'),
        (put_pickle_as_descriptors, 'not an array of numbers'),
        (put_garbage_as_descriptors, 'not an array of numbers'),
        (lambda d: set_pose(d, NAN_POSE), 'Keyframe 2: T_map_camera is not a rigid'),
        (lambda d: set_pose(d, MIRROR), 'Keyframe 2: T_map_camera is not a rigid'),
        (lambda d: set_pose(d, [[1, 2], [3]]), 'Keyframe 2: T_map_camera'),
        (lambda d: set_pose(d, np.full((4, 4), 10**400, object).tolist()), 'T_map_camera is not'),
        (drop_pose, 'lacks T_map_camera'),
        (lambda d: set_pose(d, None), 'Keyframe 2: T_map_camera is not a rigid'),
        (lambda d: set_keyframe_key(d, 'id', 2**63), r'below 2\^63'),
        (lambda d: set_file(d, 'image', file='a\0b'), 'wanted the name of a file'),
        (lambda d: set_file(d, 'image', file='\ud800'), 'wanted the name of a file'),
        (list_first_keyframe_twice, 'listed twice'),
        (lambda d: set_keyframe_key(d, 'id', 'two'), "id is 'two'"),
        (lambda d: set_keyframe_key(d, 'image', None), 'no image'),
        (lambda d: set_keyframe_key(d, 'camera', 1), 'camera is 1'),
        (lambda d: set_keyframe_key(d, 'camera', -1), 'camera is -1'),
        (lambda d: set_keyframe_key(d, 'descriptor_row', 3), 'descriptor_row is 3'),
        (lambda d: set_file(d, 'image', file='../../etc/passwd'), 'inside the map'),
        (
            lambda d: edit_json(d, lambda h: h['cameras'][0].update(width=99)),
            '64 x 48 pixels.*99 x 48',
        ),
        (lambda d: edit_json(d, lambda h: h['cameras'][0].update(fx=0)), 'camera 0'),
        (lambda d: edit_json(d, lambda h: h['cameras'][0].update(fx=10**400)), 'camera 0'),
        (lambda d: edit_json(d, lambda h: h['cameras'][0].update(zoom=2)), 'camera 0'),
        (lambda d: edit_json(d, lambda h: h['cameras'][0].update(distortion=['a'])), 'camera 0'),
    ],
)
def test_damage_is_named_together_with_what_to_do(saved, damage, words):
    damage(saved)
    with pytest.raises(MapFormatError, match=words) as caught:
        load_map(saved)
    assert str(saved) in str(caught.value)
    assert 'coam map build' in str(caught.value)


def test_image_cut_before_the_map_was_listed_is_found_too(saved):
    """Size and CRC of a file that another program cut and listed are right; its end is not."""
    path = saved / 'images' / '00000002.jpg'
    cut(path)
    data = path.read_bytes()
    set_file(saved, 'image', num_bytes=len(data), crc32=zlib.crc32(data))
    with pytest.raises(MapFormatError, match='Keyframe 2: image: JPEG is cut short'):
        load_map(saved)


def test_no_directory_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match='No map at'):
        load_map(tmp_path / 'none')
    with pytest.raises(MapFormatError, match='it is empty'):
        load_map(tmp_path)


# --- kill and full disk ---------------------------------------------------------------------

SAVE_FOR_EVER = """
import sys
from test_map_storage import make_map
from coam_ros.mapping.storage import save_map
print('ready', flush=True)
num_keyframes = 3
while True:
    save_map(make_map(num_keyframes), sys.argv[1])
    num_keyframes = 7 - num_keyframes
"""


def start_child(code: str, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, '-c', code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_map_is_whole_after_a_kill_at_any_moment(saved):
    rng = np.random.default_rng(0)
    for _ in range(3):
        child = start_child(SAVE_FOR_EVER, str(saved))
        assert child.stdout.readline() == 'ready\n'
        # Not a wait for anything: the kill shall come at some moment of some save.
        time.sleep(rng.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert len(load_map(saved)) in (3, 4)
    save_map(make_map(2), saved)
    assert len(load_map(saved)) == 2
    assert names_beside(saved) == ['map']


def test_map_is_found_after_a_kill_between_the_two_renames(saved):
    saved.rename(saved.with_name('.map.former'))
    assert len(load_map(saved)) == 3
    with pytest.raises(FileExistsError):
        save_map(make_map(1), saved, overwrite=False)
    save_map(make_map(1), saved)
    assert len(load_map(saved)) == 1
    assert names_beside(saved) == ['map']


def test_map_is_saved_after_a_kill_before_the_former_one_was_removed(saved):
    shutil.copytree(saved, saved.with_name('.map.former'))
    save_map(make_map(1), saved)
    assert len(load_map(saved)) == 1
    assert names_beside(saved) == ['map']


def test_all_of_a_map_is_on_the_disk_before_it_takes_its_place(saved, monkeypatch):
    rename = Path.rename
    steps = []

    def note_rename(path, target):
        steps.append('rename')
        return rename(path, target)

    monkeypatch.setattr(
        os, 'fsync', lambda fd: steps.append(str(Path(f'/proc/self/fd/{fd}').readlink()))
    )
    monkeypatch.setattr(Path, 'rename', note_rename)
    save_map(make_map(4), saved)
    flushed = steps[: steps.index('rename')]
    staging = os.path.commonpath(flushed)
    written = [saved, *saved.rglob('*')]
    assert {os.path.relpath(path, staging) for path in flushed} == {
        os.path.relpath(path, saved) for path in written
    }
    # And the new name itself.
    assert steps[-1] == str(saved.parent)


def test_former_map_can_be_loaded_until_the_new_one_is_there_and_comes_back_without_it(
    saved, monkeypatch
):
    rename = Path.rename
    loaded = []

    def refuse_new(path, target):
        if 'saving' in path.name:
            loaded.append(len(load_map(saved)))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, 'rename', refuse_new)
    with pytest.raises(OSError, match='untouched'):
        save_map(make_map(1), saved)
    assert loaded == [3]
    assert names_beside(saved) == ['map']
    assert len(load_map(saved)) == 3


def test_former_map_is_the_map_while_its_place_is_an_empty_folder(saved, monkeypatch):
    saved.rename(saved.with_name('.map.former'))
    saved.mkdir()
    assert len(load_map(saved)) == 3
    with pytest.raises(FileExistsError, match='holds a map already'):
        check_target(saved, overwrite=False)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(storage, 'write_map', fail)
        with pytest.raises(OSError, match='No space left'):
            save_map(make_map(1), saved)
    assert len(load_map(saved)) == 3
    save_map(make_map(1), saved)
    assert len(load_map(saved)) == 1
    assert names_beside(saved) == ['map']


def test_leftovers_of_a_kill_go_whatever_the_name_of_the_map(tmp_path):
    leftover = tmp_path / '.m[1].saving-0123'
    leftover.mkdir()
    save_map(make_map(1), tmp_path / 'm[1]')
    assert names_beside(tmp_path / 'm[1]') == ['m[1]']


SAVE_WITH_A_LIMIT = """
import resource, signal, sys
from test_map_storage import make_map
from coam_ros.mapping.storage import save_map
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_map(make_map(2), sys.argv[1])
except OSError as error:
    print(error)
"""


def test_former_map_survives_a_write_that_the_system_refuses(saved):
    child = start_child(SAVE_WITH_A_LIMIT, str(saved))
    output, _ = child.communicate(timeout=30)
    assert 'File too large' in output
    assert 'untouched' in output
    assert len(load_map(saved)) == 3
    assert names_beside(saved) == ['map']


# --- several at one map ---------------------------------------------------------------------


SAVE_FIVE_TIMES = """
import sys
from test_map_storage import make_map
from coam_ros.mapping import map_folder, storage
map_folder._LOCK_TIMEOUT_S = 60.0
print('ready', flush=True)
for _ in range(5):
    storage.save_map(make_map(4), sys.argv[1])
"""


def test_saves_of_several_threads_and_processes_come_one_after_the_other(saved, monkeypatch):
    # Whoever waits is not served in turn, and the disk of a busy machine is slow.
    monkeypatch.setattr(map_folder, '_LOCK_TIMEOUT_S', 60.0)
    child = start_child(SAVE_FIVE_TIMES, str(saved))
    assert child.stdout.readline() == 'ready\n'
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: save_map(make_map(5), saved), range(6))) == [5] * 6
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert len(load_map(saved)) in (4, 5)
    assert names_beside(saved) == ['map']


def test_save_waits_for_another_one_no_longer_than_it_says(saved, monkeypatch):
    monkeypatch.setattr(map_folder, '_LOCK_TIMEOUT_S', 0.05)
    lock = saved.with_name('.map.lock')
    with lock.open('w') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        num_open = len(list(Path('/proc/self/fd').iterdir()))
        for save in (check_target, lambda *_, **__: save_map(make_map(1), saved)):
            with pytest.raises(TimeoutError, match=r'is saving a map to .*nothing was written'):
                save(saved, overwrite=True)
        assert len(list(Path('/proc/self/fd').iterdir())) <= num_open
        assert len(load_map(saved)) == 3
    save_map(make_map(1), saved)
    assert len(load_map(saved)) == 1
    assert names_beside(saved) == ['map']


def test_lock_whose_file_was_removed_meanwhile_is_taken_again(saved, monkeypatch):
    monkeypatch.setattr(map_folder, '_LOCK_TIMEOUT_S', 0.05)
    flock = fcntl.flock
    # What the former holder does in the end.
    removals = [saved.with_name('.map.lock').unlink]

    def lock_late(*arguments):
        flock(*arguments)
        if removals:
            removals.pop()()

    monkeypatch.setattr(fcntl, 'flock', lock_late)
    with map_folder.staging_folder(saved, overwrite=True), pytest.raises(TimeoutError):
        check_target(saved, overwrite=True)


def test_disk_that_turns_read_only_during_a_save_leaves_no_lock(saved, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'unlink', refuse)
        with pytest.raises(OSError, match='Read-only'):
            save_map(make_map(), saved)
    monkeypatch.setattr(map_folder, '_LOCK_TIMEOUT_S', 0.1)
    assert save_map(make_map(4), saved) == 4


def test_disk_without_locks_takes_maps(saved, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', refuse)
    save_map(make_map(1), saved)
    assert len(load_map(saved)) == 1
    assert names_beside(saved) == ['map']


def test_load_during_a_save_gives_the_former_map_or_the_new_one(saved, monkeypatch):
    read_keyframe = map_files._read_keyframe
    saves = [make_map(n, image=encode(make_image(n), '.jpg')) for n in (4, 5)]

    def read_while_it_is_saved(*arguments):
        if saves:
            save_map(saves.pop(0), saved)
        return read_keyframe(*arguments)

    monkeypatch.setattr(map_files, '_read_keyframe', read_while_it_is_saved)
    assert len(load_map(saved)) == 5


def test_load_of_the_former_map_ends_with_the_new_one_when_the_former_goes(
    saved, pristine, monkeypatch
):
    # What a load meets when it begins between the two renames of a save.
    former = saved.rename(saved.with_name('.map.former'))
    read_keyframe = map_files._read_keyframe

    def read_when_the_new_one_is_there(*arguments):
        if not saved.exists():
            shutil.copytree(pristine, saved)
            for path in (former / 'images').iterdir():
                path.unlink()
        return read_keyframe(*arguments)

    monkeypatch.setattr(map_files, '_read_keyframe', read_when_the_new_one_is_there)
    assert len(load_map(saved)) == 3


def test_map_in_a_folder_that_is_only_readable_is_loaded(saved):
    folders = (saved, saved.parent)
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert len(load_map(saved)) == 3
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_load_is_quick_and_takes_the_memory_of_the_files(tmp_path):
    image = encode(np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8), '.jpg')
    depth = encode(np.random.default_rng(1).integers(900, 999, (480, 640), np.uint16), '.png')
    camera = PinholeCamera(640, 480, 525.0, 525.0, 320.0, 240.0)
    keyframe_map = KeyframeMap(
        make_keyframe(id=i, camera=camera, image=image, depth=depth) for i in range(100)
    )
    save_map(keyframe_map, tmp_path / 'map')
    start_s = time.thread_time()
    loaded = load_map(tmp_path / 'map')
    duration_s = time.thread_time() - start_s
    # 0.06 s of a processor for the recordings of redkitchen, more for noise; decoding takes 2 s.
    assert duration_s < 0.6
    num_bytes = sum(keyframe.num_bytes for keyframe in loaded)
    on_disk = sum(path.stat().st_size for path in (tmp_path / 'map').rglob('*.*g'))
    assert num_bytes == on_disk
